-- Claim a session for a kernel that nobody else serves it with: a new session, one that was
-- closed, or one whose owner's lease ran out (a take-over). One round trip decides it.
--
-- KEYS  1 session hash    2 lease string             (one hash tag, so one slot of a cluster)
-- ARGV  1 node  2 kernel  3 profile  4 now  5 expires (Unix seconds)
--       6 lease, ms       7 the record's life, ms; 0 = no end
-- Reply { status, generation, node, previous, reason, created, history }
--       status    'claimed', or 'held' when a live lease names an owner (this node too)
--       previous  the last generation's kernel, '' for a new session or when 'held'
--       reason    why that generation ended; 'node_lost' after a take-over; '' for a new session
--       history   the ended generations, each a line `number began ended reason` with tabs between;
--                 the last 16
--
-- The same kernel claiming again is the same claim, its first reply lost on the way: it is
-- answered alike and takes no second generation.
local record = redis.call('HMGET', KEYS[1],
  'generation', 'node', 'kernel', 'state', 'previous', 'reason', 'created', 'began', 'history')
local generation = tonumber(record[1] or '0')
local kernel, previous, reason = record[3] or '', record[5] or '', record[6] or ''
local created, history = record[7] or ARGV[4], record[9] or ''
local owner, leased = string.match(redis.call('GET', KEYS[2]) or '', '^(.*):(%d+)$')

local again = record[2] == ARGV[1] and kernel == ARGV[2]
if owner and not (again and tonumber(leased) == generation) then
  return {'held', tonumber(leased), owner, '', '', created, ''}
end

if not again then
  if generation > 0 and record[4] == 'closed' then
    created = ARGV[4] -- it had ended: its lifetime begins anew
  elseif generation > 0 then
    previous, reason = kernel, 'node_lost'
    history = history .. table.concat({generation, record[8] or '0', ARGV[4], reason}, '\t') .. '\n'
    if select(2, string.gsub(history, '\n', '')) > 16 then
      history = string.sub(history, string.find(history, '\n') + 1)
    end
  end
  generation = generation + 1
  redis.call('HSET', KEYS[1],
    'node', ARGV[1], 'kernel', ARGV[2], 'generation', generation, 'profile', ARGV[3],
    'state', 'opening', 'previous', previous, 'reason', reason,
    'created', created, 'last_used', ARGV[4], 'expires', ARGV[5],
    'began', ARGV[4], 'history', history)
end
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. generation, 'PX', ARGV[6])
if ARGV[7] == '0' then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[7])
end
return {'claimed', generation, ARGV[1], previous, reason, created, history}

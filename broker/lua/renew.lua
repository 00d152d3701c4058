-- Renew an owner's lease. A claim that is gone (an emptied store, a lease that ran out with nobody
-- taking over) is written again, unless a higher generation exists.
--
-- KEYS  1 session hash    2 lease string
-- ARGV  1 node  2 generation  3 kernel  4 lease, ms  5 the record's life, ms; 0 = no end
--       6 profile  7 state  8 created  9 last_used  10 expires      (for writing it again)
-- Reply 'ok', 'rewritten', or 'lost': this node's kernel is not the session's any more
--
-- Two nodes can hold the same generation only when the store was emptied and the second claimed
-- before the first renewed. Then the older session stands; on the same instant, the lower kernel id.
local mine = tonumber(ARGV[2])
local record = redis.call('HMGET', KEYS[1], 'generation', 'node', 'kernel', 'state', 'created')
local generation = tonumber(record[1] or '0')
local owner, leased = string.match(redis.call('GET', KEYS[2]) or '', '^(.*):(%d+)$')

if generation > mine or (owner and tonumber(leased) > mine) then
  return 'lost'
end

local whole = false
if generation == mine then
  if record[4] == 'closed' then
    return 'lost' -- released while this renewal was on its way: it must not come back
  end
  whole = record[2] == ARGV[1] and record[3] == ARGV[3]
  if not whole then
    local theirs, ours = tonumber(record[5] or '0'), tonumber(ARGV[8])
    if theirs < ours or (theirs == ours and (record[3] or '') < ARGV[3]) then
      return 'lost'
    end
  end
end

local name = ARGV[1] .. ':' .. ARGV[2]
redis.call('SET', KEYS[2], name, 'PX', ARGV[4])
if whole and owner and owner .. ':' .. leased == name then
  return 'ok'
end
if not whole then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1],
    'node', ARGV[1], 'kernel', ARGV[3], 'generation', ARGV[2], 'profile', ARGV[6],
    'state', ARGV[7], 'previous', '', 'reason', '',
    'created', ARGV[8], 'last_used', ARGV[9], 'expires', ARGV[10])
  if ARGV[5] ~= '0' then
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
  end
end
return 'rewritten'

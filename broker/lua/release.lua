-- Close a session's generation: the kernel is cleared, the reason kept, and the record stays a
-- while, so that the next claim counts on from it and says what became of the last one.
--
-- KEYS  1 session hash    2 lease string
-- ARGV  1 node  2 generation  3 reason  4 now (Unix seconds)  5 keep, ms
--       6 when the record goes (Unix seconds)
-- Reply 1, also when it was released before (the first reason stays)
--       0 when the session is another's: a higher generation, or the same one on another node
--
-- The ended generation is added to the record's history, as claim.lua has it.
-- A record that is gone is written closed: the owner knows which generation ends here.
local mine = tonumber(ARGV[2])
local record = redis.call('HMGET', KEYS[1], 'generation', 'node', 'kernel', 'state', 'began', 'history')
local generation = tonumber(record[1] or '0')
local owner, leased = string.match(redis.call('GET', KEYS[2]) or '', '^(.*):(%d+)$')

if generation > mine or (generation == mine and record[2] ~= ARGV[1]) then
  return 0
end
if owner and (tonumber(leased) > mine or (tonumber(leased) == mine and owner ~= ARGV[1])) then
  return 0
end
redis.call('DEL', KEYS[2]) -- ours, or a lower generation's that the rules give to us
if generation == mine and record[4] == 'closed' then
  return 1
end
if generation ~= mine then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1],
    'node', ARGV[1], 'generation', ARGV[2], 'profile', '', 'created', ARGV[4], 'last_used', ARGV[4])
end
local began, history = '0', ''
if generation == mine then
  began, history = record[5] or '0', record[6] or ''
end
history = history .. table.concat({mine, began, ARGV[4], ARGV[3]}, '\t') .. '\n'
if select(2, string.gsub(history, '\n', '')) > 16 then
  history = string.sub(history, string.find(history, '\n') + 1)
end
redis.call('HSET', KEYS[1],
  'began', began, 'history', history, 'kernel', '', 'previous', generation == mine and record[3] or '', 'state', 'closed',
  'reason', ARGV[3], 'expires', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1

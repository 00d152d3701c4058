-- Note a session's use, written behind. A record that is gone, closed, or another's is left as it
-- is: half a record would be worse than none, and a renewal writes the whole one again.
--
-- KEYS  1 session hash
-- ARGV  1 node  2 generation  3 state  4 last_used  5 expires (Unix seconds)
--       6 the record's life, ms; 0 = no end
-- Reply 1 when it was noted, 0 when the record was not ours to write
local record = redis.call('HMGET', KEYS[1], 'node', 'generation', 'state')
if record[1] ~= ARGV[1] or record[2] ~= ARGV[2] or record[3] == 'closed' then
  return 0
end
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'last_used', ARGV[4], 'expires', ARGV[5])
if ARGV[6] == '0' then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
end
return 1

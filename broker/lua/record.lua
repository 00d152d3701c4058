-- Add cells to a session's transcript, and drop the oldest that are over its bounds.
--
-- KEYS  1 list, the cells, the newest last
--       2 their bytes, all together
-- ARGV  1 cells kept at most  2 bytes kept at most  3 how long they are kept, ms
--       4 … the new cells
-- Reply the number of cells kept
local count = redis.call('LLEN', KEYS[1])
local bytes = count > 0 and tonumber(redis.call('GET', KEYS[2]))
if not bytes then
  -- The first cells, or a server that was short of memory has dropped one of the two.
  bytes = 0
  for _, cell in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
    bytes = bytes + #cell
  end
end
for at = 4, #ARGV do
  -- For one that has no room at all, the others need not go.
  if #ARGV[at] <= tonumber(ARGV[2]) then
    bytes = bytes + #ARGV[at]
    count = redis.call('RPUSH', KEYS[1], ARGV[at])
  end
end
while count > 0 and (count > tonumber(ARGV[1]) or bytes > tonumber(ARGV[2])) do
  bytes = bytes - #redis.call('LPOP', KEYS[1])
  count = count - 1
end
if count > 0 then
  redis.call('SET', KEYS[2], bytes, 'PX', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  redis.call('DEL', KEYS[2])
end
return count

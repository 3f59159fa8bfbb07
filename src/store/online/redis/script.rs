//! The scripts that change a job's keys, each at once or not at all.

/// Joins a generation of the job, or claims one; tells (generation, life of the values).
///
/// `KEYS[1]` is the job's hash. `ARGV`: the generation, or `""` to claim one; the generation of the first start; the
/// server's run id; what a new life of the values would be called; the job's instance, or `""`, and the number of this start
/// of it; then field, value of what a job says of itself (only the newest generation speaks); then `"layouts"`; then field,
/// value of layouts, which anyone adds.
///
/// Starts of one instance have generations in the order of their numbers, whenever they come here. Others are newer than
/// whoever came before.
///
/// A life begins where the hash names none, because it is lost with the values, or one of another run of the server. It
/// is never renewed otherwise, but by a newer start that lays the values out in another way: whoever finds the life that he
/// knows finds everything that was written in it.
pub(super) const JOIN: &str = r#"
local held = tonumber(redis.call('HGET', KEYS[1], 'generation') or 0)
local mine, number = tonumber(ARGV[1]), tonumber(ARGV[6])
if not mine then
  local counted, instance = string.match(redis.call('HGET', KEYS[1], 'start') or '', '^(%d+):(.*)$')
  if instance == ARGV[5] then
    mine = held - tonumber(counted) + number
  else
    mine = (held == 0 and tonumber(ARGV[2]) or held + 1) + number
  end
end
local at, moved = 7, false
while ARGV[at] ~= 'layouts' do
  if ARGV[at] == 'layout' and mine >= held then
    moved = (redis.call('HGET', KEYS[1], 'layout') or 'native') ~= ARGV[at + 1]
  end
  at = at + 2
end
local life = redis.call('HGET', KEYS[1], 'life')
local start = ARGV[3] .. ':'
if held == 0 or not life or moved or string.sub(life, 1, #start) ~= start then
  life = start .. ARGV[4]
  redis.call('HSET', KEYS[1], 'life', life)
end
for i = at + 1, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if known and known ~= ARGV[i + 1] then
    return redis.error_reply('TWOLAYOUTS ' .. ARGV[i])
  end
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
if mine >= held then
  if mine > held then
    for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
      if field == 'now' or string.sub(field, 1, 5) == 'tick:' then redis.call('HDEL', KEYS[1], field) end
    end
  end
  redis.call('HSET', KEYS[1], 'generation', string.format('%.0f', mine))
  if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[1], 'start', ARGV[6] .. ':' .. ARGV[5])
  else
    redis.call('HDEL', KEYS[1], 'start')
  end
  for i = 7, at - 1, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return {mine, life}
"#;

/// Writes rows in place of older ones; tells ([`MINE`], [`SUPERSEDED`] or [`FORGOTTEN`], rows written).
///
/// `KEYS[1]` is the job's hash. `ARGV`: generation, writer, tick, the clock or `""`; then key, row of each row. A row's
/// stamp is at its bytes 6 to 21 (see [`super::super::value`]); numbers are exact up to 2^53.
///
/// A newer start that has a number has the job's state, and tells all that the state holds: what an older one still has to
/// write is void, also where there is nothing now.
pub(super) const PUT: &str = r#"
local writer = 'tick:' .. ARGV[2]
local g, t = tonumber(ARGV[1]), tonumber(ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'generation', writer, 'now', 'start')
local generation, newest = tonumber(held[1] or 0), tonumber(held[2] or 0)
if generation > g and held[4] then return {1, 0} end
if generation == g then
  if ARGV[4] ~= '' and (not held[3] or tonumber(held[3]) < tonumber(ARGV[4])) then
    redis.call('HSET', KEYS[1], 'now', ARGV[4])
  end
  if newest <= t then
    if newest < t or not held[2] then redis.call('HSET', KEYS[1], writer, ARGV[3]) end
    if #ARGV > 4 then redis.call('MSET', unpack(ARGV, 5)) end
    return {0, (#ARGV - 4) / 2}
  end
end
local written = 0
for i = 5, #ARGV, 2 do
  local old = redis.call('GETRANGE', ARGV[i], 0, 20)
  local newer = false
  if #old == 21 and string.byte(old) == 1 then
    local old_g, old_t = struct.unpack('<I8I8', old, 6)
    newer = old_g > g or (old_g == g and old_t > t)
  end
  if not newer then
    redis.call('SET', ARGV[i], ARGV[i + 1])
    written = written + 1
  end
end
if generation == g then return {0, written} end
return {generation > g and 1 or 2, written}
"#;

/// [`PUT`] for Feast's layout. `ARGV`: generation, writer, tick, the clock or `""`; the number of fields, and the fields, of which
/// the last holds the header; then of each row its key and a value for each field.
///
/// Lua's stack holds some thousand values, so that a wide row goes in pieces; the script is still one deed.
pub(super) const PUT_FEAST: &str = r#"
local writer = 'tick:' .. ARGV[2]
local g, t = tonumber(ARGV[1]), tonumber(ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'generation', writer, 'now', 'start')
local generation, newest = tonumber(held[1] or 0), tonumber(held[2] or 0)
if generation > g and held[4] then return {1, 0} end
local compare = true
if generation == g then
  if ARGV[4] ~= '' and (not held[3] or tonumber(held[3]) < tonumber(ARGV[4])) then
    redis.call('HSET', KEYS[1], 'now', ARGV[4])
  end
  if newest <= t then
    if newest < t or not held[2] then redis.call('HSET', KEYS[1], writer, ARGV[3]) end
    compare = false
  end
end
local fields = tonumber(ARGV[5])
local stamp, row, written = ARGV[5 + fields], {}, 0
for i = 1, fields do row[2 * i - 1] = ARGV[5 + i] end
for at = 6 + fields, #ARGV, fields + 1 do
  local key, newer = ARGV[at], false
  if compare then
    local old = redis.call('HGET', key, stamp)
    if old and #old >= 21 and string.byte(old) == 1 then
      local old_g, old_t = struct.unpack('<I8I8', old, 6)
      newer = old_g > g or (old_g == g and old_t > t)
    end
  end
  if not newer then
    for i = 1, fields do row[2 * i] = ARGV[at + i] end
    for from = 1, 2 * fields, 4000 do
      redis.call('HSET', key, unpack(row, from, math.min(from + 3999, 2 * fields)))
    end
    written = written + 1
  end
end
if generation == g then return {0, written} end
return {generation > g and 1 or 2, written}
"#;

/// The writer is of the newest generation.
pub(super) const MINE: i64 = 0;
/// A later start of the job has taken over.
pub(super) const SUPERSEDED: i64 = 1;
/// The server does not know the generation: it has lost what it held.
pub(super) const FORGOTTEN: i64 = 2;

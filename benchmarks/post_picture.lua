-- A content type and a body's path in, a line of JSON with what wrk counted out: POST the body, over and over.
-- wrk -s post_picture.lua URL -- CONTENT_TYPE BODY

local threads = {}

refused = 0

local function contents(path)
   local file = assert(io.open(path, "rb"))
   local bytes = file:read("*a")
   file:close()
   return bytes
end

function setup(thread)
   threads[#threads + 1] = thread
end

function init(args)
   wrk.method = "POST"
   wrk.headers["Content-Type"] = args[1]
   wrk.body = contents(args[2])
end

-- wrk's own count of bad statuses begins at 400.
function response(status)
   if status < 200 or status > 299 then
      refused = refused + 1
   end
end

function done(summary, latency)
   local not_2xx = 0
   for _, thread in ipairs(threads) do
      not_2xx = not_2xx + thread:get("refused")
   end
   local errors = summary.errors
   print(string.format(
      '{"responses": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "not_2xx": %d, "socket_errors": %d}',
      summary.requests,
      summary.duration / 1e6,
      latency:percentile(50) / 1e3,
      latency:percentile(99) / 1e3,
      not_2xx,
      errors.connect + errors.read + errors.write + errors.timeout
   ))
end

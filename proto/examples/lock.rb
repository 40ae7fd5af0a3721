# ruby lock.rb HOST PORT KEY WAIT WORK: waits for the key for WAIT milliseconds, works under it for WORK seconds
require "socket"
require "timeout"
$stdout.sync = true

def stop(status, text, thread = Thread.current)
  warn text
  thread.raise SystemExit.new(status) # an exception: the work can clean up
end

def watch(sock, key, fence, limit)
  answer = fence
  while answer == fence # else the key is given back or lost
    sock.write("fence #{key}\r\n") unless IO.select([sock], nil, nil, limit) # a heartbeat
    answer = Timeout.timeout(limit) { sock.gets("\r\n", chomp: true) }
  end
  answer == "u unlocked"
rescue SystemCallError, Timeout::Error # lost
end

def locked(host, port, key, wait, holder = Thread.current)
  Socket.tcp(host, port, connect_timeout: 10) do |sock|
    sock.write("name lock.rb:#{Process.pid}\r\nlock #{key} #{wait}\r\nfence #{key}\r\n")
    named, reply, fence = Timeout.timeout(wait / 1000 + 10) { Array.new(3) { sock.gets("\r\n", chomp: true) } }
    stop 75, "#{key} is not locked: #{reply}" unless fence&.start_with?("f ") # only the holder gets a token
    limit = named.split[2].to_i / 4000.0 # a quarter of the time after which a silent client loses the key
    watcher = Thread.new { watch(sock, key, fence, limit) or stop(76, "lost #{key}", holder) }
    yield fence[2..]
  ensure
    sock.write("unlock #{key}\r\n") rescue nil
    watcher&.join
  end
end

host, port, key, wait, seconds = ARGV
locked(host, port, key, wait.to_i) do |token|
  puts "locked #{key} with token #{token}"
  sleep seconds.to_f # the work; it sends the token with all that it writes
end
puts "unlocked #{key}"

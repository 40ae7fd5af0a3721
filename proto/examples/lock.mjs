// node lock.mjs HOST PORT KEY WAIT WORK: waits for the key for WAIT milliseconds, works under it for WORK seconds
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const [host, port, key, wait, seconds] = process.argv.slice(2);
const stop = (status, text) => { console.error(text); process.exit(status); };
const socket = connect(port, host).setTimeout(Number(wait) + 10_000);
const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
let asked = true; // and not answered yet
const silence = new Promise((resolve) => {
  socket.on('timeout', () => {
    if (asked) resolve({});
    asked = true;
    socket.write(`fence ${key}\r\n`); // a heartbeat
  });
});
const answer = async () => {
  const { value } = await Promise.race([lines.next(), silence]).catch(() => ({}));
  asked = false;
  return value; // undefined after the end of the connection
};
socket.write(`name lock.mjs:${process.pid}\r\nlock ${key} ${wait}\r\nfence ${key}\r\n`);
const [named, reply, fence] = [await answer(), await answer(), await answer()];
if (!fence?.startsWith('f ')) stop(75, `${key} is not locked: ${reply ?? ''}`); // only the holder gets a token
socket.setTimeout(named.split(' ')[2] / 4); // a quarter of the time after which a silent client loses the key
const lost = new AbortController();
const watching = (async (line = fence) => {
  while (line === fence) line = await answer(); // else the key is given back or lost
  if (line !== 'u unlocked') lost.abort();
})();
try {
  console.log(`locked ${key} with token ${fence.slice(2)}`);
  await sleep(seconds * 1000, null, { signal: lost.signal }); // the work; it sends the token with all that it writes
} finally {
  socket.write(`unlock ${key}\r\n`);
  await watching;
  lost.signal.aborted ? stop(76, `lost ${key}`) : socket.destroy();
}
console.log(`unlocked ${key}`);

// Claims and completes jobs with BullMQ's own client: one connection for each worker, and two
// acknowledged calls for each job. Arguments: port, workers, jobs, seconds. Prints jobs per second.
import { Queue, Worker } from 'bullmq';

const [port, workers, jobs, seconds] = process.argv.slice(2).map(Number);
const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null };
const queue = new Queue('bench', { connection });
const missing = jobs - (await queue.count());
for (let begun = 0; begun < missing; begun += 1000) {
  const some = Array.from({ length: Math.min(1000, missing - begun) }, (_, i) => ({
    name: 'job', data: 'x'.repeat(100), opts: { priority: 1 + (i % 3), removeOnComplete: true },
  }));
  await queue.addBulk(some);
}
const all = Array.from({ length: workers }, () =>
  new Worker('bench', null, { connection, autorun: false, lockDuration: 300000 }));
await Promise.all(all.map((worker) => worker.waitUntilReady()));
const begun = performance.now();
let done = 0;
await Promise.all(all.map(async (worker, i) => {
  while (performance.now() - begun < seconds * 1000) {
    const job = await worker.getNextJob(`t${i}`, { block: false });
    if (!job) break;
    await job.moveToCompleted('', `t${i}`, false);
    done += 1;
  }
}));
const rate = done / ((performance.now() - begun) / 1000);
console.log(rate.toFixed(0));
process.exit(0);

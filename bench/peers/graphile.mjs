// Claims and completes jobs with graphile-worker's own runner. Arguments: port, workers, jobs, seconds.
// Prints jobs per second.
import { makeWorkerUtils, run } from 'graphile-worker';

const [port, workers, jobs, seconds] = process.argv.slice(2).map(Number);
const connectionString = `postgres://postgres@127.0.0.1:${port}/postgres`;
const silent = { logger: new (await import('graphile-worker')).Logger(() => () => {}) };
const utils = await makeWorkerUtils({ connectionString, ...silent });
await utils.migrate();
await utils.withPgClient((client) => client.query(
  `select graphile_worker.add_jobs(array(select row('bench', to_json(repeat('x', 100)), null, null, null,
   null, (i % 3)::smallint, null)::graphile_worker.job_spec from generate_series(1, $1::int) i))`, [jobs]));
let done = 0;
let finish;
const over = new Promise((resolve) => { finish = resolve; });
let begun = 0;
const runner = await run({
  connectionString, ...silent, concurrency: workers, maxPoolSize: workers + 2, noHandleSignals: true,
  pollInterval: 1000, taskList: { bench: async () => {
    begun ||= performance.now();
    if (++done === jobs) finish();
  } },
});
await Promise.race([over, new Promise((resolve) => setTimeout(resolve, seconds * 1000))]);
const rate = done / ((performance.now() - begun) / 1000);
await runner.stop();
await utils.withPgClient((client) => client.query('delete from graphile_worker._private_jobs'));
console.log(rate.toFixed(0));
process.exit(0);

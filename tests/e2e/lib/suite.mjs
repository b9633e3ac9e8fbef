// Tests that share one cluster: it starts before the first and ends after the last; a failing test prints its logs.
import { after, before, describe, it } from 'node:test';
import { Cluster } from './cluster.mjs';

// A hanging request is a failure of that test, not of the whole run.
const TEST_TIMEOUT_MS = 150_000;

// `options` are those of Cluster.start, and testTimeoutMs: how long one test may take.
export function withCluster(name, { testTimeoutMs = TEST_TIMEOUT_MS, ...options }, define) {
  describe(name, { concurrency: false }, () => {
    const holder = { cluster: null };
    before(async () => {
      holder.cluster = await Cluster.start(options);
    });
    after(async () => {
      await holder.cluster?.stop();
    });
    define((title, options, body = options) =>
      it(title, { timeout: testTimeoutMs, ...(body === options ? {} : options) }, async (t) => {
        try {
          await body(holder.cluster, t);
        } catch (error) {
          holder.cluster?.printLogs();
          throw error;
        }
      }),
    );
  });
}

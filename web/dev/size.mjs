// Prints the gzipped size of every built file and fails above the budget: `npm run build && npm run size`.
import { readdirSync, readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';

const BUDGET = 150_000;
const dist = fileURLToPath(new URL('../dist/', import.meta.url));
let sum = 0;
for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile()) continue;
  const bytes = gzipSync(readFileSync(`${entry.parentPath}/${entry.name}`), { level: 9 }).length;
  sum += bytes;
  console.log(`${String(bytes).padStart(8)}  ${entry.name}`);
}
console.log(`${String(sum).padStart(8)}  in all, gzipped; the budget is ${BUDGET}`);
if (sum > BUDGET) process.exit(1);

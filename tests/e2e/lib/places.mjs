// Where things are: the built programs, the engine, optional test data.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const repository = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');

function firstThatExists(candidates) {
  return candidates.find((candidate) => candidate && fs.existsSync(candidate)) ?? null;
}

const buildDir = process.env.AIV_BUILD_DIR;

export const aivBin =
  process.env.AIV_BIN ??
  firstThatExists([buildDir && path.join(buildDir, 'bin/aiv'), path.join(repository, 'build/release/bin/aiv'), path.join(repository, 'build/dev/bin/aiv')]);

// Folder of llama-server and its backends; null where it was not built.
export const engineDir = firstThatExists([process.env.AIV_ENGINE_DIR, aivBin && path.join(path.dirname(aivBin), 'engine')]);

// Where scripts/fetch-promtool.sh puts it, else one of the PATH.
export const promtool = firstThatExists([process.env.AIV_PROMTOOL, path.join(repository, '.cache/promtool/promtool')]) ?? 'promtool';

// A file of the optional test data, or null.
export function testData(relative) {
  return firstThatExists([process.env.AIV_TEST_DATA && path.join(process.env.AIV_TEST_DATA, relative), path.join(repository, '../shared', relative)]);
}

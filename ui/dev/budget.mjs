// Fails when the first load of the built page is over its budget: budget.mjs FOLDER
import { readdirSync, readFileSync, statSync } from "node:fs";
import { extname, join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";

const limit = 90_000;
const folder = process.argv[2];

function* files(dir) {
  for (const name of readdirSync(dir).sort()) {
    const path = join(dir, name);
    if (statSync(path).isDirectory()) yield* files(path);
    else yield path;
  }
}

let brotli = 0;
let gzip = 0;
for (const path of files(folder)) {
  const bytes = readFileSync(path);
  brotli += brotliCompressSync(bytes).length;
  gzip += gzipSync(bytes, { level: 9 }).length;
  const text = bytes.toString();
  if (extname(path) === ".html" && /<(script|style)(?![^>]*\bsrc=)[^>]*>[^<]|\sstyle=|\son[a-z]+=/.test(text)) {
    console.error(`${path}: inline script or style; the content policy forbids it`);
    process.exit(1);
  }
}
console.log(`first load: ${(gzip / 1000).toFixed(1)} kB gzip, ${(brotli / 1000).toFixed(1)} kB brotli (limit ${limit / 1000})`);
if (gzip > limit) process.exit(1);

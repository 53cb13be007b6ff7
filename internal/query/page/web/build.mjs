// Builds the page into a directory, or runs the tests of its plain parts.
//
// The same source gives the same bytes: versions are pinned in
// package-lock.json, and nothing here knows the time, the machine or the path.
// Names of files carry a hash of their bytes, so that a browser may keep them
// for ever and a new promdump on the same port is never mixed with an old one.
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const common = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "firefox113", "safari16.4"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none", // licenses.txt has them whole
  assetNames: "[name]-[hash]",
  entryNames: "[name]-[hash]",
  loader: { ".woff2": "file" },
  metafile: true,
  logLevel: "warning",
};

async function build(out) {
  rmSync(out, { recursive: true, force: true });
  const assets = join(out, "assets");
  mkdirSync(assets, { recursive: true });
  const worker = await esbuild.build({ ...common, outdir: assets, entryPoints: { worker: "src/worker.ts" } });
  const app = await esbuild.build({
    ...common,
    outdir: assets,
    entryPoints: { app: "src/main.tsx" },
    define: { WORKER_URL: JSON.stringify("assets/" + entry(worker, ".js")) },
  });
  const svg = readFileSync(join(here, "src/icon.svg"));
  const icon = `icon-${createHash("sha256").update(svg).digest("hex").slice(0, 8)}.svg`;
  writeFileSync(join(assets, icon), svg);
  const names = { JS: entry(app, ".js"), CSS: entry(app, ".css"), ICON: icon };
  const html = readFileSync(join(here, "src/index.html"), "utf8");
  writeFileSync(join(out, "index.html"), html.replace(/%(\w+)%/g, (_, name) => "assets/" + names[name]));
  writeFileSync(join(out, "licenses.txt"), licenses([worker, app]));
  for (const name of readdirSync(assets).sort()) {
    const bytes = readFileSync(join(assets, name));
    console.log(`${name.padEnd(60)} ${String(bytes.length).padStart(8)} ${String(gzipSync(bytes, { level: 9 }).length).padStart(8)} gz`);
  }
}

function entry(result, suffix) {
  const found = Object.entries(result.metafile.outputs).find(([path, o]) => path.endsWith(suffix) && (o.entryPoint || suffix === ".css"));
  return basename(found[0]);
}

// What is bundled keeps its licence.
function licenses(results) {
  const packages = new Set();
  for (const r of results) {
    for (const path of Object.keys(r.metafile.inputs)) {
      const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path);
      if (found) packages.add(found[1]);
    }
  }
  let text = "The page of promdump contains these packages of others.\n";
  for (const name of [...packages].sort()) {
    const dir = join(here, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(dir, "package.json"), "utf8"));
    const file = readdirSync(dir).sort().find((f) => /^licen[cs]e/i.test(f));
    text += `\n${"=".repeat(78)}\n${name} ${version}, ${license}\n${"=".repeat(78)}\n`;
    if (file) text += "\n" + readFileSync(join(dir, file), "utf8").replace(/\r\n/g, "\n").trim() + "\n";
  }
  return text;
}

async function test() {
  const dir = mkdtempSync(join(tmpdir(), "promdump-page-"));
  const tests = readdirSync(join(here, "src")).filter((f) => f.endsWith(".test.ts"));
  await esbuild.build({ ...common, minify: false, entryNames: "[name]", outExtension: { ".js": ".mjs" }, platform: "node", target: "node20", outdir: dir, entryPoints: tests.map((f) => "src/" + f) });
  const { status } = spawnSync(process.execPath, ["--test", ...tests.map((f) => join(dir, f.replace(/\.ts$/, ".mjs")))], { stdio: "inherit" });
  rmSync(dir, { recursive: true });
  process.exit(status ?? 1);
}

if (process.argv[2] === "--test") await test();
else await build(process.argv[2]);

// Signals, history, views, the stream's blocks and what is copied: all that needs no browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { batch, computed, effect, signal } from "../../../src/overpaint/page/state/signal.js";
import { JobClock } from "../../../src/overpaint/page/state/document.js";
import { History } from "../../../src/overpaint/page/state/history.js";
import { fit, kept, toPicture, zoomed } from "../../../src/overpaint/page/canvas/view.js";
import { parsed, placeIn } from "../../../src/overpaint/page/api/stream.js";
import { durationText, sizeText } from "../../../src/overpaint/page/text/text.js";
import { written } from "../../../src/overpaint/page/work/copying.js";
import { maskFile } from "../../../src/overpaint/page/canvas/png.js";
import { pictureFile } from "../../../src/overpaint/page/canvas/encode.js";
import { Mask } from "../../../src/overpaint/page/canvas/mask.js";
import { fillPolygon, rectangle } from "../../../src/overpaint/page/canvas/shapes.js";
import { inflateSync } from "node:zlib";

test("effects follow what they read, and only that", () => {
  const a = signal(1), b = signal(10), seen = [];
  const end = effect(() => seen.push(a.value > 1 ? b.value : 0));
  b.value = 11;
  a.value = 2;
  b.value = 12;
  b.value = 12;
  end();
  a.value = 1;
  assert.deepEqual(seen, [0, 11, 12]);
});

test("a batch tells once, and what follows from signals is up to date", () => {
  const a = signal(1), b = signal(2), sum = computed(() => a.value + b.value), seen = [];
  effect(() => seen.push(sum.value));
  batch(() => {
    a.value = 5;
    b.value = 6;
  });
  assert.deepEqual(seen, [3, 11]);
});

test("effects inside an effect end with it", () => {
  const outer = signal(0), inner = signal(0);
  let runs = 0;
  effect(() => {
    void outer.value;
    effect(() => {
      void inner.value;
      runs++;
    });
  });
  outer.value = 1;
  outer.value = 2;
  runs = 0;
  inner.value = 1;
  assert.equal(runs, 1);
});

test("history goes back and forth, one step after the other, and forgets what was undone when something new is done", async () => {
  const history = new History(), done = [];
  const step = (name) => ({
    name,
    kept: name,
    undo: () => new Promise((resolve) => setTimeout(() => resolve(done.push(`-${name}`)), 3)),
    redo: () => void done.push(`+${name}`),
  });
  history.add(step("a"));
  history.add(step("b"));
  history.undo();
  history.undo();
  history.undo();
  await history.redo();
  assert.deepEqual(done, ["-b", "-a", "+a"]);
  history.add(step("c"));
  assert.deepEqual([history.at.peek(), history.length.peek()], [2, 2]);
  await history.redo();
  assert.deepEqual(history.commands.map((each) => each.name), ["a", "c"]);
});

test("a step waits for what is being drawn, which is then the one to be undone", async () => {
  const history = new History(), done = [];
  const step = (name, load) => ({ name, kept: name, load, undo: () => done.push(`-${name}`), redo: () => done.push(`+${name}`) });
  history.add(step("a"));
  history.hold();
  const undone = history.undo();
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(done, []);
  history.add(step("b"));
  history.release();
  await undone;
  assert.deepEqual([done, history.at.peek()], [["-b"], 1]);
  const loading = step("c", () => new Promise((resolve) => setTimeout(() => resolve(done.push("loaded")), 3)));
  history.add(loading);
  await history.undo();
  assert.deepEqual(done, ["-b", "loaded", "-c"]);
});

test("a step that cannot be loaded is told, and stays where it is", async () => {
  const history = new History(), said = [];
  history.onfailed = (error) => said.push(error.message);
  history.add({ name: "a", kept: null, load: async () => { throw new Error("gone"); }, undo: () => said.push("never"), redo() {} });
  await history.undo();
  assert.deepEqual([said, history.at.peek(), history.isMoving], [["gone"], 1, false]);
  history.add({ name: "b", kept: null, undo: () => said.push("undone"), redo() {} });
  await history.undo();
  assert.deepEqual([said, history.at.peek()], [["gone", "undone"], 1]);
});

test("a job's seconds are those of its steps, without what came before the first", () => {
  const { now } = performance, clock = new JobClock();
  let at = 0;
  performance.now = () => at;
  try {
    for (const [when, name, data] of [[0, "started", { steps: 10 }], [100e3, "progress", { step: 2, steps: 10 }], [101e3, "progress", { step: 3, steps: 10 }]]) {
      at = when;
      clock.heard("a", name, data);
    }
    clock.heard("b", "started", { steps: 1 });
    at = 108e3;
    clock.heard("b", "progress", { step: 1, steps: 1 });
    assert.deepEqual([clock.secondsOf("a", 10), clock.secondsOf("b", 1), clock.secondsOf("c", 10)], [10, 7, null]);
  } finally {
    performance.now = now;
  }
});

test("a zoom leaves the point at the cursor where it is", () => {
  const view = { scale: 0.7, x: 30, y: -12 };
  const next = zoomed(view, 1.7, 400, 300);
  const before = toPicture(view, 400, 300), after = toPicture(next, 400, 300);
  assert.ok(Math.hypot(before.x - after.x, before.y - after.y) < 1e-9);
  assert.equal(zoomed(view, 1e9, 0, 0).scale, 64);
});

test("a picture that is fitted is whole, and one that is pushed stays in reach", () => {
  const window = { width: 800, height: 600 };
  for (const picture of [{ width: 6000, height: 4000 }, { width: 30, height: 900 }, { width: 16, height: 16 }]) {
    const { scale, x, y } = fit(picture, window);
    assert.ok(x >= 0 && y >= 0 && x + picture.width * scale <= 800 && y + picture.height * scale <= 600);
    const far = kept({ scale, x: 1e6, y: -1e6 }, picture, window);
    assert.ok(far.x < 800 && far.y + picture.height * scale > 0);
  }
});

test("events are read as the standard says", () => {
  assert.equal(parsed(": still here"), null);
  assert.equal(parsed("retry: 1000"), null);
  const told = parsed('id: one.4,two.12\nevent: progress\ndata: {"job": "two",\ndata: "step": 3}');
  assert.deepEqual(told, { name: "progress", id: "one.4,two.12", data: { job: "two", step: 3 } });
  assert.equal(placeIn(told), 12);
});

test("what is copied keeps its quotes", () => {
  const fields = { prompt: "it's a \"cat\"", strength: 0.5, only_masked: true, seed: -1, negative_prompt: "" };
  const named = { kind: "paint", ...fields, images: ["picture.png"], mask: "mask.png" };
  const sent = { ...named, images: ["sha256:abc"], mask: "sha256:def" };
  assert.equal(written("command", named, ""), `overpaint paint picture.png '--prompt=it'\\''s a "cat"' --mask mask.png --strength 0.5 --only-masked\n`);
  assert.match(written("curl", sent, "http://127.0.0.1:7860/"), /^curl http.*"images":\["sha256:abc"\],"mask":"sha256:def"/);
  assert.match(written("curl", named, "http://127.0.0.1:7860/"), /^# .*\ncurl -T picture.png http/);
  assert.match(written("python", named, ""), /only_masked=True,\n/);
  assert.deepEqual(JSON.parse(written("json", sent, "")).prompt, fields.prompt);
});

test("what no option says is said beside the command", () => {
  const fields = { prompt: "-x", width: 64, height: 48, mask_blur_x: 2, mask_blur_y: 2, styles: ["oil", "a b"], overrides: { eta_noise_seed_delta: 3 } };
  const wanted = `# has no option: overrides={"eta_noise_seed_delta":3}\noverpaint txt2img --prompt=-x --size 64x48 --mask-blur 2 --style oil --style 'a b'\n`;
  assert.equal(written("command", { kind: "paint", ...fields }, ""), wanted);
});

test("sizes and times are told as people tell them", () => {
  const sizes = [[0, "0 kB"], [1234, "1.2 kB"], [999_600, "1 MB"], [35.2e6, "35 MB"], [2 * 2 ** 30, "2.1 GB"], [4.5e15, "4,500 TB"]];
  for (const [bytes, told] of sizes) assert.equal(sizeText(bytes), told);
  for (const [seconds, told] of [[0, "0 minutes"], [90, "1.5 minutes"], [3600, "1 hour"], [172_800, "2 days"], [604_800, "1 week"]]) {
    assert.equal(durationText(seconds), told);
  }
});

/** The pixels of a PNG with filters none and sub, which are all that is written. */
async function pixels(file, channels) {
  const data = Buffer.from(await file.arrayBuffer());
  assert.equal(data.subarray(1, 4).toString(), "PNG");
  const wide = data.readUInt32BE(16), high = data.readUInt32BE(20);
  const lines = inflateSync(data.subarray(41, 41 + data.readUInt32BE(33)));
  const out = new Uint8Array(wide * high * channels), line = wide * channels + 1;
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide * channels; x++) {
      const before = lines[y * line] === 1 && x >= channels ? out[y * wide * channels + x - channels] : 0;
      out[y * wide * channels + x] = lines[y * line + 1 + x] + before;
    }
  }
  return { wide, high, out };
}

test("a mask's file holds the mask", async () => {
  const mask = new Mask(301, 270);
  fillPolygon(mask, rectangle({ x: 250, y: 3 }, { x: 301, y: 266 }), 200);
  const { wide, high, out } = await pixels(await maskFile(mask), 1);
  assert.deepEqual([wide, high], [301, 270]);
  assert.deepEqual(out, mask.flat([0, 0, 301, 270]));
});

test("a picture's file holds its pixels", async () => {
  const wanted = Uint8Array.from({ length: 37 * 50 * 4 }, (_, i) => (i * 7919) >> 3);
  const file = await pictureFile(37, 50, (top, high) => wanted.subarray(top * 37 * 4, (top + high) * 37 * 4), 16);
  assert.deepEqual((await pixels(file, 4)).out, wanted);
});

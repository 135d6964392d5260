// The mask against the plainest way to do the same: one array of bytes, every pixel looked at.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Mask } from "../../../src/overpaint/page/canvas/mask.js";
import { Stroke, Pressure } from "../../../src/overpaint/page/canvas/stroke.js";
import { clearAll, ellipse, fillAll, fillFrom, fillPolygon, invertAll, rectangle } from "../../../src/overpaint/page/canvas/shapes.js";
import { refined } from "../../../src/overpaint/page/canvas/refine.js";
import { feathered, grown } from "../../../src/overpaint/page/canvas/edges.js";

const WIDE = 600, HIGH = 300; // neither is whole tiles

const all = (mask) => mask.flat([0, 0, mask.width, mask.height]);
const stroke = (mask, points, brush = {}) => {
  const one = new Stroke(mask, { radius: 30, softness: 0, opacity: 1, erases: false, ...brush });
  points.forEach(([x, y]) => one.to({ x, y, pressure: 1 }));
  return one.end();
};

test("a dab is every pixel whose middle lies within the radius", () => {
  const mask = new Mask(WIDE, HIGH);
  stroke(mask, [[255.3, 128.7]]);
  all(mask).forEach((value, i) => {
    const x = (i % WIDE) + 0.5, y = Math.floor(i / WIDE) + 0.5;
    assert.equal(value, Math.hypot(x - 255.3, y - 128.7) <= 30 ? 255 : 0);
  });
});

test("a soft stroke is how far each pixel lies from its line, in however many pieces it was drawn", () => {
  const wanted = (x, y) => {
    const t = Math.min(1, Math.max(0, ((x - 40) * 420 + (y - 30) * 200) / (420 ** 2 + 200 ** 2)));
    const far = Math.hypot(x - 40 - 420 * t, y - 30 - 200 * t) / 30;
    return far <= 0.4 ? 204 : far >= 1 ? 0 : (204 * (1 - far)) / 0.6;
  };
  for (const pieces of [1, 2, 37]) {
    const mask = new Mask(WIDE, HIGH);
    const points = Array.from({ length: pieces + 1 }, (_, i) => [40 + (420 * i) / pieces, 30 + (200 * i) / pieces]);
    stroke(mask, points, { softness: 0.6, opacity: 0.8 });
    all(mask).forEach((value, i) => {
      const given = wanted((i % WIDE) + 0.5, Math.floor(i / WIDE) + 0.5);
      assert.ok(Math.abs(value - given) < 1.2, `${pieces} pieces: ${value} for ${given} at ${i}`);
    });
  }
  const across = new Mask(WIDE, HIGH), upright = new Mask(WIDE, HIGH);
  stroke(across, [[250, 150], [262, 150]], { softness: 0.6 });
  stroke(upright, [[150, 250], [150, 262]], { softness: 0.6 });
  for (let i = -40; i < 60; i++) for (let j = -40; j < 60; j++) assert.equal(across.at(250 + i, 150 + j), upright.at(150 + j, 250 + i));
});

test("a stroke over the edge paints what is inside, and opacity does not build up within it", () => {
  const mask = new Mask(WIDE, HIGH);
  stroke(mask, [[-10, 10], [80, 10], [-10, 10], [80, 10]], { opacity: 0.5 });
  assert.deepEqual([...new Set(all(mask))].sort(), [0, 128]);
  assert.equal(mask.at(0, 0), 128);
});

test("all tiles that are full are one, which nobody writes to", () => {
  const mask = new Mask(1024, 512), other = new Mask(1024, 512);
  const filled = fillAll(mask);
  fillAll(other);
  assert.equal(new Set([...mask.tiles, ...other.tiles]).size, 1);
  const erased = stroke(mask, [[300, 150]], { erases: true });
  assert.equal(mask.at(300, 150), 0);
  assert.equal(new Set(mask.tiles).size, 2);
  assert.ok(all(other).every((each) => each === 255));
  mask.apply(erased);
  assert.ok(all(mask).every((each) => each === 255));
  assert.equal(new Set(mask.tiles).size, 1);
  mask.apply(filled);
  assert.ok(mask.isEmpty());
  mask.apply(filled);
  const cancelled = new Stroke(mask, { radius: 30, softness: 0, opacity: 1, erases: true });
  cancelled.to({ x: 300, y: 150, pressure: 1 });
  cancelled.cancel();
  assert.ok([...all(mask), ...all(other)].every((each) => each === 255));
});

test("the eraser takes away, softly where it is soft", () => {
  const mask = new Mask(WIDE, HIGH);
  fillAll(mask);
  stroke(mask, [[300, 150]], { erases: true, softness: 1 });
  assert.equal(mask.at(300, 150) < 10, true);
  assert.equal(mask.at(315, 150) > 80 && mask.at(315, 150) < 180, true);
  assert.equal(mask.at(340, 150), 255);
});

test("a change undoes itself and does itself again", () => {
  const mask = new Mask(WIDE, HIGH);
  const states = [all(mask)], changes = [];
  for (const made of [
    () => stroke(mask, [[20, 20], [500, 250]], { softness: 0.5 }),
    () => stroke(mask, [[500, 20], [20, 250]], { erases: true }),
    () => fillPolygon(mask, rectangle({ x: 10, y: 10 }, { x: 270, y: 280 }), 255),
    () => grown(mask, 5),
    () => invertAll(mask),
    () => clearAll(mask),
  ]) {
    changes.push(made());
    states.push(all(mask));
  }
  for (let i = changes.length - 1; i >= 0; i--) {
    mask.apply(changes[i]);
    assert.deepEqual(all(mask), states[i]);
  }
  for (let i = 0; i < changes.length; i++) {
    mask.apply(changes[i]);
    assert.deepEqual(all(mask), states[i + 1]);
  }
});

test("what changes nothing is no change, and what is taken back leaves nothing", () => {
  const mask = new Mask(WIDE, HIGH);
  assert.equal(stroke(mask, [[100, 100]], { erases: true }), null);
  assert.equal(clearAll(mask), null);
  const one = new Stroke(mask, { radius: 9, softness: 0, opacity: 1, erases: false });
  one.to({ x: 50, y: 50, pressure: 1 });
  one.cancel();
  assert.equal(mask.isEmpty(), true);
  assert.equal(mask.tiles.every((each) => each === null), true);
});

test("everything and its opposite stay within the picture", () => {
  const mask = new Mask(WIDE, HIGH);
  fillAll(mask);
  assert.deepEqual(mask.box(), [0, 0, WIDE, HIGH]);
  assert.equal(all(mask).every((each) => each === 255), true);
  invertAll(mask);
  assert.equal(mask.isEmpty(), true);
  assert.equal(mask.box(), null);
});

test("the box is that of the bytes", () => {
  const mask = new Mask(WIDE, HIGH);
  stroke(mask, [[200, 100], [400, 222]]);
  const bytes = all(mask);
  const xs = [], ys = [];
  bytes.forEach((value, i) => value && (xs.push(i % WIDE), ys.push(Math.floor(i / WIDE))));
  const least = (list) => list.reduce((a, b) => Math.min(a, b)), most = (list) => list.reduce((a, b) => Math.max(a, b));
  assert.deepEqual(mask.box(), [least(xs), least(ys), most(xs) + 1, most(ys) + 1]);
});

test("shapes cover their area", () => {
  const count = (mask) => all(mask).reduce((sum, value) => sum + (value > 0), 0);
  const square = new Mask(WIDE, HIGH);
  fillPolygon(square, rectangle({ x: 10, y: 20 }, { x: 310, y: 120 }), 255);
  assert.equal(count(square), 300 * 100);
  const round = new Mask(WIDE, HIGH);
  fillPolygon(round, ellipse({ x: 100, y: 50 }, { x: 300, y: 250 }), 255);
  assert.ok(Math.abs(count(round) - Math.PI * 100 * 100) < 150);
});

test("an outline is filled up to its own edge", () => {
  const mask = new Mask(WIDE, HIGH);
  fillPolygon(mask, rectangle({ x: 50, y: 50 }, { x: 550, y: 250 }), 255);
  fillPolygon(mask, rectangle({ x: 60, y: 60 }, { x: 540, y: 240 }), 0);
  fillFrom(mask, { x: 300, y: 150 }, 255);
  assert.equal(all(mask).reduce((sum, value) => sum + (value > 0), 0), 500 * 200);
  assert.equal(fillFrom(mask, { x: 300, y: 150 }, 255), null);
  assert.equal(fillFrom(mask, { x: -1, y: 150 }, 255), null);
});

test("growing and shrinking are exact distances", () => {
  const mask = new Mask(WIDE, HIGH);
  fillPolygon(mask, [{ x: 100, y: 100 }, { x: 300, y: 120 }, { x: 180, y: 220 }], 255);
  const before = all(mask);
  const near = (isIn, reach) => (i) => {
    const x = i % WIDE, y = Math.floor(i / WIDE);
    for (let dy = -reach; dy <= reach; dy++) {
      for (let dx = -reach; dx <= reach; dx++) {
        const inside = x + dx >= 0 && x + dx < WIDE && y + dy >= 0 && y + dy < HIGH;
        if (inside && dx * dx + dy * dy <= reach * reach && isIn(before[i + dy * WIDE + dx])) return true;
      }
    }
    return false;
  };
  const change = grown(mask, 7);
  const wider = near((value) => value > 127, 7);
  all(mask).forEach((value, i) => assert.equal(value > 127, wider(i)));
  mask.apply(change);
  grown(mask, -7);
  const lost = near((value) => value <= 127, 7);
  all(mask).forEach((value, i) => assert.equal(value > 127, before[i] > 127 && !lost(i)));
});

test("a soft edge fades evenly and keeps its middle", () => {
  const mask = new Mask(WIDE, HIGH);
  fillPolygon(mask, rectangle({ x: 100, y: 50 }, { x: 400, y: 250 }), 255);
  feathered(mask, 12);
  const row = Array.from({ length: 60 }, (_, i) => mask.at(70 + i, 150));
  assert.ok(row.every((value, i) => !i || value >= row[i - 1]));
  assert.ok(Math.abs(mask.at(99, 150) + mask.at(100, 150) - 255) <= 2);
  assert.equal(mask.at(250, 150), 255);
});

test("pressure loses its jitter and keeps its level", () => {
  const pressure = new Pressure();
  for (let i = 0; i < 5; i++) assert.ok(Math.abs(pressure.next(0.5) - 0.5) < 1e-9);
  assert.ok(Math.abs(pressure.next(1) - 0.6) < 1e-9);
});

test("a line mends the mask only in what hangs together with it", () => {
  const part = (left, right) => rectangle({ x: left, y: 40 }, { x: right, y: 80 });
  const mask = new Mask(WIDE, HIGH), found = new Mask(WIDE, HIGH), line = new Mask(WIDE, HIGH);
  fillPolygon(mask, part(100, 140), 255);
  for (const [left, right] of [[100, 200], [300, 340]]) fillPolygon(found, part(left, right), 255);
  stroke(line, [[170, 50], [170, 90]], { radius: 4 });
  const added = refined(mask, found, line, [90, 30, 400, 85], false);
  all(mask).forEach((value, i) => {
    const x = i % WIDE, y = Math.floor(i / WIDE);
    const isFound = x >= 100 && x < 200 && y >= 40 && y < 80;
    const isUnderLine = line.at(x, y) > 0 && y < 85; // outside of the box nothing changes
    assert.equal(value, isFound || isUnderLine ? 255 : 0, `${x},${y}`);
  });
  mask.apply(added);
  fillPolygon(mask, part(300, 340), 255);
  const before = all(mask), nothing = new Mask(WIDE, HIGH);
  stroke(nothing, [[310, 60]], { radius: 4 });
  refined(mask, new Mask(WIDE, HIGH), nothing, [90, 30, 400, 85], true);
  all(mask).forEach((value, i) => assert.equal(value, i % WIDE >= 300 ? 0 : before[i]));
});

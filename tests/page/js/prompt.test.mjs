// What a prompt may go on with.
import assert from "node:assert/strict";
import { test } from "node:test";
import { completionAt, replaced, tagOf } from "../../../src/overpaint/page/work/completing.js";

const network = (id, words = []) => ({ id, title: id, words, picture: null });
const known = { loras: [network("inkwash", ["in ink"]), network("washed"), network("oil")], embeddings: [network("bokeh"), network("bokehlights")] };
const labels = (text, cursor = text.length) => completionAt(text, cursor, known)?.choices.map((each) => each.label) ?? null;

test("a tag that is begun is completed, its best names first", () => {
  assert.deepEqual(labels("a lake <lora:"), ["inkwash", "washed", "oil"]);
  assert.deepEqual(labels("a lake <lora:wa"), ["washed", "inkwash"]);
  assert.deepEqual(labels("a lake <lo"), ["inkwash", "washed", "oil"]);
  assert.equal(labels("a lake <lora:none"), null);
  assert.equal(labels("a lake <lora:oil:0.5"), null);
});

test("an embedding is offered after two letters, and not when it is there already", () => {
  assert.equal(labels("a b"), null);
  assert.deepEqual(labels("a (bo"), ["bokeh", "bokehlights"]);
  assert.deepEqual(labels("bokeh"), ["bokehlights"]);
  assert.deepEqual(labels("a bok, far", 5), ["bokeh", "bokehlights"]);
});

test("what is chosen takes the place of what was typed, and of the rest of its tag", () => {
  const text = "a <lora:in>, far";
  const { from, to, choices } = completionAt(text, 10, known);
  assert.deepEqual(replaced(text, from, to, choices[0].text), { text: `a ${tagOf(known.loras[0])}, far`, cursor: 25 });
  assert.equal(tagOf(known.loras[2]), "<lora:oil:1>");
});

/** Server-sent events over fetch: an EventSource could not send the token, and each would hold a connection of its own. */

import { ask } from "./client.js";

/** @typedef {{name: string, id: string, data: any}} Message */

/**
 * The story of several jobs on one connection, until it breaks or all are over.
 * @param {Map<string, number>} jobs id -> the last event that was heard of
 * @param {AbortSignal} signal
 * @param {(message: Message) => void} tell
 * @returns {Promise<boolean>} whether all are over
 */
export async function follow(jobs, signal, tell) {
  const named = [...jobs].map(([id, after]) => `${id}.${after}`).join(",");
  const answer = await ask("GET", `v1/events?jobs=${encodeURIComponent(named)}&previews=data`, { signal });
  if (answer.status === 204 || !answer.body) return true;
  const reader = answer.body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return true;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const message = parsed(block);
      if (message) tell(message);
    }
  }
}

/**
 * The number of an event in its job's own story: its id tells the place in all stories.
 * @param {Message} message
 * @returns {number}
 */
export function placeIn({ id, data }) {
  const own = id.split(",").find((each) => each.startsWith(`${data.job}.`));
  return own ? Number(own.slice(data.job.length + 1)) : 0;
}

/**
 * @param {string} block
 * @returns {Message | null} null for comments
 */
export function parsed(block) {
  /** @type {Record<string, string>} */
  const fields = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at <= 0) continue;
    const name = line.slice(0, at), value = line.slice(at + 1).replace(/^ /, "");
    fields[name] = name in fields ? `${fields[name]}\n${value}` : value;
  }
  return fields.data === undefined ? null : { name: fields.event ?? "message", id: fields.id ?? "", data: JSON.parse(fields.data) };
}

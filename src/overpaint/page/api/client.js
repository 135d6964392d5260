/** The service's own API, /v1: every call of the page goes through here. */

import { signal } from "../state/signal.js";

/** What went wrong, in the server's words. */
export class ApiError extends Error {
  /**
   * @param {number} status 0 where there was no answer
   * @param {string} code
   * @param {string} message
   * @param {string | null} field
   */
  constructor(status, code, message, field) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.field = field;
  }
}

const TOKEN = "overpaint-token";
const CLIENT = "overpaint-client";

/** Whether the server answers: "online", "offline", or "token" if it wants one. */
export const connection = signal(/** @type {"online" | "offline" | "token"} */ ("online"));

/** @returns {string} a name for this browser, so that its jobs share one place in the queue */
function clientName() {
  let name = localStorage.getItem(CLIENT);
  if (!name) localStorage.setItem(CLIENT, (name = `page-${randomName(8)}`));
  return name;
}

/** @param {number} length */
export function randomName(length) {
  return [...crypto.getRandomValues(new Uint8Array(length))].map((each) => (each % 36).toString(36)).join("");
}

/** @param {string} token kept until the tab is closed */
export function useToken(token) {
  sessionStorage.setItem(TOKEN, token);
  connection.value = "online";
}

/** @returns {string | null} */
export function token() {
  return sessionStorage.getItem(TOKEN);
}

/** @typedef {{json?: unknown, body?: Blob | Uint8Array, accept?: string, signal?: AbortSignal}} Sent */

/**
 * @param {string} method
 * @param {string} path below the page's own address, so that it may lie anywhere behind a proxy
 * @param {Sent} [sent]
 * @returns {Promise<Response>}
 */
export async function ask(method, path, sent = {}) {
  const headers = new Headers({ "X-Client": clientName() });
  const held = token();
  if (held) headers.set("Authorization", `Bearer ${held}`);
  if (sent.json !== undefined) headers.set("Content-Type", "application/json");
  else if (sent.body) headers.set("Content-Type", "application/octet-stream");
  const body = sent.json !== undefined ? JSON.stringify(sent.json) : /** @type {BodyInit | undefined} */ (sent.body);
  const answer = await fetch(path, { method, headers, body, signal: sent.signal }).catch((error) => {
    if (sent.signal?.aborted) throw error;
    connection.value = "offline";
    throw new ApiError(0, "offline", String(error), null);
  });
  if (answer.status === 401) connection.value = "token";
  else connection.value = "online";
  if (answer.ok) return answer;
  throw await errorOf(answer);
}

/**
 * @param {string} method
 * @param {string} path
 * @param {Sent} [sent]
 * @returns {Promise<any>}
 */
export async function json(method, path, sent) {
  return (await ask(method, path, sent)).json();
}

/**
 * @param {Response} answer
 * @returns {Promise<ApiError>}
 */
async function errorOf(answer) {
  const told = await answer.json().catch(() => ({}));
  const { code = "error", message = answer.statusText, field = null } = told.error ?? {};
  return new ApiError(answer.status, code, message, field);
}

// -- what there is ------------------------------------------------------------------------------------------------

/**
 * @param {Blob} picture
 * @returns {Promise<string>} what names it in requests
 */
export async function upload(picture) {
  return (await json("PUT", "v1/pictures", { body: picture })).picture;
}

/** @param {Blob} file of any picture that the server reads */
export const asPng = async (file) => (await ask("POST", "v1/pictures/png", { body: file })).blob();
/** @param {string} id @param {unknown} request */
export const submit = (id, request) => json("PUT", `v1/jobs/${id}`, { json: request });
/** @param {string} id */
export const job = (id) => json("GET", `v1/jobs/${id}`);
/** @param {string} id */
export const cancel = (id) => json("POST", `v1/jobs/${id}/cancel`);
/** @param {string} id */
export const finish = (id) => json("POST", `v1/jobs/${id}/finish`);
/** @param {string} id @param {number} number */
export const picture = async (id, number) => (await ask("GET", `v1/jobs/${id}/images/${number}`)).blob();
/** @param {string} id @param {number} number */
export const keepResult = async (id, number) => (await json("POST", `v1/jobs/${id}/images/${number}/source`)).picture;
/** @param {string} id @param {number} number @param {number} side */
export const thumbnail = async (id, number, side) => (await ask("GET", `v1/jobs/${id}/images/${number}/thumbnail?side=${side}`)).blob();
/** @param {Record<string, string | number | boolean>} asked */
export const gallery = (asked) => json("GET", `v1/gallery?${new URLSearchParams(Object.entries(asked).map(([name, value]) => [name, String(value)]))}`);
/** @param {string} id @param {boolean} pinned */
export const pin = (id, pinned) => json(pinned ? "PUT" : "DELETE", `v1/jobs/${id}/pin`);
/** @param {string} id */
export const remove = (id) => ask("DELETE", `v1/jobs/${id}`);
/** @param {unknown} asked */
export const drawMask = async (asked) => (await ask("POST", "v1/masks", { json: asked })).blob();
/** @param {unknown} asked @param {AbortSignal} signal */
export const planBox = (asked, signal) => json("POST", "v1/plan/box", { json: asked, signal });
export const schema = () => json("GET", "v1/schema");
export const limits = () => json("GET", "v1/limits");
export const samplers = () => json("GET", "v1/samplers");
/** @param {string} kind */
export const models = async (kind) => (await json("GET", `v1/models?kind=${kind}`)).data;
/** @param {string} text */
export const countTokens = (text) => json("POST", "v1/tokens", { json: { text } });
export const styles = () => json("GET", "v1/styles");
export const presets = () => json("GET", "v1/presets");
/** @param {string} name @param {Record<string, any>} request */
export const keepPreset = (name, request) => json("PUT", `v1/presets/${encodeURIComponent(name)}`, { json: request });
/** @param {string} name */
export const dropPreset = (name) => ask("DELETE", `v1/presets/${encodeURIComponent(name)}`);
/** @param {Blob} file */
export const recipe = (file) => json("POST", "v1/recipe", { body: file });

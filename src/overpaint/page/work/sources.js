/** Pictures as the server knows them: each travels once, and again only where the server has forgotten it. */

import { ApiError, upload } from "../api/client.js";

/** @typedef {import("./session.js").Session} Session */

/**
 * What names a version of the picture on the server.
 * @param {Session} session
 * @param {string} key of the picture's file
 * @param {(key: string) => Promise<Blob | null>} [fileOf]
 * @param {string} [field] that it is for
 * @returns {Promise<string>}
 */
export async function referenceOf({ keeper, document }, key, fileOf = (name) => keeper.file(name), field = "images") {
  const known = document.pictures.peek().find((each) => each.key === key)?.reference;
  if (known) return known;
  const file = await fileOf(key);
  if (!file) throw new ApiError(422, "picture", "the picture is not in the browser's store any more", field);
  const reference = await upload(file);
  keeper.named(key, reference);
  return reference;
}

/**
 * Whether a request was refused because a picture that it names is not kept any more.
 * @param {unknown} error
 */
export function isForgotten(error) {
  return error instanceof ApiError && error.status === 422 && error.message.includes("PUT /v1/pictures");
}

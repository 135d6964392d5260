/** What a job is asked with: the form, and what was drawn, as files. A request that is copied is made by the same hands. */

import { upload } from "../api/client.js";
import { graysAreStrength } from "../state/settings.js";
import { referenceOf } from "./sources.js";

/** @typedef {import("../state/document.js").Job} Job */
/** @typedef {import("./session.js").Session} Session */
/** @typedef {(file: Blob) => Promise<string>} Keep a file gets a key */
/** @typedef {(key: string) => Promise<Blob | null>} FileOf */
/** @typedef {import("./jobs.js").Wish} Wish */
/** @typedef {Pick<Job, "tool" | "mask" | "map" | "crop">} Drawn */

/**
 * Mask and colours as files, and the tool that paints them.
 * @param {ReturnType<Session["layers"]>} layers in which something is masked
 * @param {Record<string, any> | undefined} fields of the tool that paints it, if it is no plain job
 * @param {Keep} keep
 * @returns {Promise<Drawn>}
 */
export async function drawn(layers, fields, keep) {
  const { colour, picture } = layers;
  const mask = /** @type {import("../canvas/mask.js").Mask} */ (layers.mask);
  let tool = fields ? { source: /** @type {string | null} */ (null), fields } : null;
  let all = mask;
  if (picture?.grown && !colour && !fields) tool = (await import("./growing.js")).outpaintingOf(picture, mask);
  if (colour) {
    // The job begins from the picture with its colours, and paints where they are, too.
    const { flattened, joined } = await import("../canvas/colour.js");
    const source = /** @type {import("../canvas/pyramid.js").Pyramid} */ (layers.source);
    all = joined(mask, colour);
    tool = { source: await keep(await flattened(source.levels[0], colour)), fields: fields ?? {} };
  }
  const { hardened, maskFile } = await import("../canvas/png.js");
  const crop = all.box();
  const isMap = graysAreStrength.peek();
  const own = await keep(await maskFile(isMap ? hardened(all) : all));
  return { tool, mask: own, map: isMap ? await keep(await maskFile(all)) : null, crop };
}

/**
 * The request itself. Pictures that the server does not have are sent there.
 * @param {Session} session
 * @param {Wish & Drawn} job
 * @param {FileOf} [fileOf]
 * @returns {Promise<Record<string, any>>}
 */
export async function requestOf(session, job, fileOf = (key) => session.keeper.file(key)) {
  const { tool } = job;
  /** @type {Record<string, any>} */
  const request = { kind: "paint", ...job.request, ...tool?.fields };
  const seen = await Promise.all((job.references ?? []).map((key) => referenceOf(session, key, fileOf, "references")));
  if (seen.length) request.references = seen;
  const key = tool?.source ?? job.picture;
  if (!key) return request;
  const images = [await referenceOf(session, key, fileOf)];
  const mask = job.mask && tool?.fields.kind !== "outpaint" && (await fileOf(job.mask));
  const map = mask && job.map && (await fileOf(job.map));
  return { ...request, images, ...(mask ? { mask: await upload(mask) } : {}), ...(map ? { strength_map: await upload(map) } : {}) };
}

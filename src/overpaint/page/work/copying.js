/** The request as other doors take it: curl, Python, the command line, plain JSON. */

import { drawn, requestOf } from "./asking.js";
import { wishOf } from "./jobs.js";
import { newKey } from "./session.js";

/** @typedef {import("./session.js").Session} Session */

/** Field of a request -> option of the command line; those that are switches say so. */
const OPTIONS = /** @type {Record<string, string | [string, string]>} */ ({
  negative_prompt: "--negative",
  strength: "--strength",
  resize_mode: "--resize",
  masked_content: "--fill",
  only_masked: ["--only-masked", "--whole"],
  padding: "--padding",
  invert_mask: ["--invert-mask", "--no-invert-mask"],
  round_mask: ["--round-mask", "--no-round-mask"],
  blend: "--blend",
  steps: "--steps",
  cfg_scale: "--cfg",
  guidance: "--guidance",
  image_cfg_scale: "--image-cfg",
  seed: "--seed",
  variation_seed: "--variation-seed",
  variation_strength: "--variation-strength",
  batch_size: "--batch-size",
  iterations: "--count",
  sampler: "--sampler",
  scheduler: "--scheduler",
  checkpoint: "--model",
  refiner: "--refiner",
  refiner_switch_at: "--refiner-at",
  clip_skip: "--clip-skip",
  tiling: ["--tiling", "--no-tiling"],
  eta: "--eta",
  s_churn: "--s-churn",
  s_tmin: "--s-tmin",
  s_tmax: "--s-tmax",
  s_noise: "--s-noise",
  s_min_uncond: "--s-min-uncond",
  noise_multiplier: "--noise-multiplier",
  color_correction: ["--color-correction", "--no-color-correction"],
  use_networks: ["--networks", "--no-networks"],
  exact: ["--exact", "--no-exact"],
});
/** Files that stand for pictures where a text cannot hold them. */
const FILES = { images: "picture.png", mask: "mask.png", strength_map: "strength.png" };

/**
 * @param {"curl" | "python" | "command" | "json"} form
 * @param {Session} session
 */
export async function copied(form, session) {
  const isSent = form === "curl" || form === "json"; // the others name files
  const wish = wishOf(session);
  const request = isSent ? await sent(session, wish).catch(() => named(wish)) : named(wish); // without the server it is copied all the same
  await toClipboard(written(form, request, new URL(".", location.href).href));
}

/**
 * The request as it would be sent now.
 * @param {Session} session
 * @param {import("./jobs.js").Wish} wish
 */
async function sent(session, wish) {
  /** @type {Map<string, Blob>} */
  const files = new Map();
  const keep = async (/** @type {Blob} */ file) => {
    const key = newKey();
    files.set(key, file);
    return key;
  };
  const none = { tool: null, mask: null, map: null, crop: null };
  const own = wish.isMasked ? await drawn(session.layers(), undefined, keep) : none;
  return requestOf(session, { ...wish, ...own }, async (key) => files.get(key) ?? session.keeper.file(key));
}

/**
 * The request with the names of files in the places of its pictures.
 * @param {import("./jobs.js").Wish} wish
 * @returns {Record<string, any>}
 */
function named({ request, picture, isMasked, references = [] }) {
  return {
    ...{ kind: "paint", ...request },
    ...(picture ? { images: [FILES.images] } : {}),
    ...(isMasked ? { mask: FILES.mask } : {}),
    ...(references.length ? { references: references.map((_, i) => `reference-${i + 1}.png`) } : {}),
  };
}

/**
 * @param {"curl" | "python" | "command" | "json"} form
 * @param {Record<string, any>} request
 * @param {string} base
 * @returns {string}
 */
export function written(form, request, base) {
  const given = Object.entries(request).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const plain = Object.fromEntries(given);
  if (form === "json") return JSON.stringify(plain, null, 2);
  if (form === "curl") return curl(plain, base);
  const { kind: _, images, mask, prompt = "", ...fields } = plain;
  return form === "python" ? python({ images, mask, prompt, fields }) : command({ images, mask, prompt, fields });
}

/** @param {Record<string, any>} request @param {string} base */
function curl(request, base) {
  const isNamed = request.images?.[0] === FILES.images;
  const upload = isNamed ? `# This names a picture; put what it says in the place of the file's name\ncurl -T ${FILES.images} ${base}v1/pictures\n\n` : "";
  return `${upload}curl ${base}v1/jobs -H 'Content-Type: application/json' -H 'Prefer: wait' -d ${quoted(JSON.stringify(request))}\n`;
}

/** @typedef {{images?: string[], mask?: string, prompt: string, fields: Record<string, any>}} Named */

/** @param {Named} request */
function python({ images, mask, prompt, fields }) {
  const several = "batch_size" in fields || "iterations" in fields;
  const lines = Object.entries(fields).map(([name, value]) => `    ${name}=${literal(value)},\n`);
  const pictures = images ? [`    ${literal(images[0])},\n`, `    ${literal(prompt)},\n`] : [`    ${literal(prompt)},\n`];
  if (mask) lines.push(`    mask=${literal(mask)},\n`);
  const made = `overpaint.${images ? "img2img" : "txt2img"}(\n${[...pictures, ...lines].join("")})\n`;
  if (!several) return `import overpaint\n\npicture = ${made}picture.save("painted.png")\n`;
  return `import overpaint\n\npictures = ${made}for number, picture in enumerate(pictures, 1):\n    picture.save(f"painted-{number}.png")\n`;
}

/** @param {Named} request */
function command({ images, mask, prompt, fields }) {
  const words = images ? ["overpaint", "paint", images[0], quoted(`--prompt=${prompt}`)] : ["overpaint", "txt2img", quoted(`--prompt=${prompt}`)];
  if (mask) words.push("--mask", mask);
  const left = { ...fields };
  for (const [name, option] of Object.entries(optionsOf(fields))) {
    delete left[name];
    words.push(...option);
  }
  const lost = Object.entries(left).map(([name, value]) => `# has no option: ${name}=${JSON.stringify(value)}\n`);
  return `${lost.join("")}${words.join(" ")}\n`;
}

/** The options that say what the fields say; those are left out that no option says. @param {Record<string, any>} fields */
function optionsOf(fields) {
  /** @type {Record<string, string[]>} */
  const found = {};
  const many = (/** @type {string} */ name, /** @type {string} */ flag, /** @type {string[]} */ values) => (found[name] = values.flatMap((each) => [flag, quoted(each)]));
  for (const [name, value] of Object.entries(fields)) {
    const option = OPTIONS[name];
    if (Array.isArray(option)) found[name] = [option[value ? 0 : 1]];
    else if (option) found[name] = name === "seed" && value < 0 ? [] : [option, quoted(String(value))];
  }
  const { width, height, mask_blur_x, mask_blur_y, styles, references, loras, seed_resize, soft_inpainting } = fields;
  if (width && height) Object.assign(found, { width: ["--size", `${width}x${height}`], height: [] });
  if (mask_blur_x !== undefined && mask_blur_x === mask_blur_y) Object.assign(found, { mask_blur_x: ["--mask-blur", String(mask_blur_x)], mask_blur_y: [] });
  if (styles) many("styles", "--style", styles);
  if (references) many("references", "--look-at", references);
  if (loras) many("loras", "--lora", loras.map((/** @type {any} */ each) => [each.name, each.weight ?? 1, ...(each.text_weight == null ? [] : [each.text_weight])].join(":")));
  if (seed_resize) found.seed_resize = ["--seed-resize", seed_resize.join("x")];
  if (soft_inpainting && !Object.keys(soft_inpainting).length) found.soft_inpainting = ["--soft"];
  return found;
}

/** As Python writes it. @param {any} value @returns {string} */
function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${literal(each)}`).join(", ")}}`;
  return JSON.stringify(value);
}

/** For a shell. @param {string} text */
function quoted(text) {
  return /^[\w.,:/+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Where pages may not use the clipboard (plain http from elsewhere) the old way still works. @param {string} text */
async function toClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

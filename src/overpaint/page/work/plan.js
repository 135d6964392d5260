/** The box that would be painted follows the mask: the server is asked, a moment after the last stroke. */

import { planBox } from "../api/client.js";
import { united } from "../canvas/mask.js";
import { effect } from "../state/signal.js";
import { planned } from "../state/settings.js";
import { sizes } from "./jobs.js";

const LATER = 250; // milliseconds

/**
 * @param {import("./session.js").Session} session
 * @param {import("../canvas/stage.js").Stage | undefined} stage
 */
export function followPlan(session, stage) {
  const { document } = session;
  let timer = 0;
  let stop = new AbortController();
  effect(() => {
    void document.maskChanges.value;
    const picture = document.picture.value;
    const form = document.form.value;
    clearTimeout(timer);
    stop.abort();
    timer = window.setTimeout(async () => {
      const coloured = session.colour && !session.colour.isEmpty() ? (await import("../canvas/colour.js")).boxOf(session.colour) : null;
      const box = united(session.mask?.box() ?? null, coloured);
      if (!picture || !stage) return;
      if (!box || !form.only_masked) return told(stage, null, null);
      stop = new AbortController();
      const asked = { source: [picture.width, picture.height], box, ...sizes(form) };
      await planBox(asked, stop.signal).then((plan) => told(stage, plan.crop, plan.size), () => told(stage, null, null));
    }, LATER);
  });
}

/**
 * @param {import("../canvas/stage.js").Stage} stage
 * @param {[number, number, number, number] | null} crop
 * @param {[number, number] | null} size
 */
function told(stage, crop, size) {
  stage.crop = crop;
  stage.redrawOver();
  planned.value = size && { width: size[0], height: size[1] };
}

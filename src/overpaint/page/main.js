/** The page starts: language, the document of this tab, the view. */

import { Document } from "./state/document.js";
import { keepSettings } from "./state/settings.js";
import { preferred, speak } from "./text/text.js";
import { documentOfTab } from "./work/keeper.js";
import { Jobs } from "./work/jobs.js";
import { decoded, Session } from "./work/session.js";
import { OverPaint } from "./views/app.js";

keepSettings();
const [id] = await Promise.all([documentOfTab(), speak(preferred())]);
const session = new Session(new Document(id));
const jobs = new Jobs(session);
const page = /** @type {OverPaint} */ (document.querySelector("over-paint"));
page.use(session, jobs);
session.isRestoring = true;
try {
  await session.keeper.restore(decoded);
} catch (error) {
  console.error("not restored:", error);
  session.keeper.giveUp();
} finally {
  session.isRestoring = false;
}
session.keeper.watch();
session.begin();
jobs.start();
await page.ready();

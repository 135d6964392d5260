/** What a prompt may go on with at the cursor: LoRAs, embeddings, and the words that call them up. Values only. */

/** @typedef {{id: string, title: string, words: string[], picture: string | null}} Network */
/** @typedef {{loras: Network[], embeddings: Network[]}} Networks */
/** @typedef {{label: string, about: string, text: string}} Choice `text` takes the place of what was typed */
/** @typedef {{from: number, to: number, choices: Choice[]}} Completion */

const MOST = 8;
const LEAST = 2; // letters of an embedding's name after which it is offered

/**
 * @param {string} text
 * @param {number} cursor
 * @param {Networks} known
 * @returns {Completion | null}
 */
export function completionAt(text, cursor, known) {
  const before = text.slice(0, cursor);
  const tag = /<(?:l|lo|lor|lora|lora:([^<>:]*))$/i.exec(before);
  if (tag) {
    const choices = matching(known.loras, tag[1] ?? "").map((each) => ({ label: each.id, about: each.words.join(", "), text: tagOf(each) }));
    const rest = /^[^<>,\s]*>/.exec(text.slice(cursor)); // of a tag that is there already
    return choices.length ? { from: cursor - tag[0].length, to: cursor + (rest?.[0].length ?? 0), choices } : null;
  }
  const word = /[^\s,()[\]{}<>:|]+$/.exec(before)?.[0] ?? "";
  if (word.length < LEAST) return null;
  const choices = matching(known.embeddings, word)
    .filter((each) => each.id.toLowerCase() !== word.toLowerCase())
    .map((each) => ({ label: each.id, about: each.words.join(", "), text: each.id }));
  return choices.length ? { from: cursor - word.length, to: cursor, choices } : null;
}

/**
 * A LoRA as prompts name it, with the first words that call it up.
 * @param {Network} lora
 */
export function tagOf({ id, words }) {
  return `<lora:${id}:1>${words.length ? ` ${words[0]}` : ""}`;
}

/**
 * The text with something in the place of a part, and where the cursor is then.
 * @param {string} text
 * @param {number} from
 * @param {number} to
 * @param {string} put
 */
export function replaced(text, from, to, put) {
  return { text: text.slice(0, from) + put + text.slice(to), cursor: from + put.length };
}

/** Those whose name begins so come first. @param {Network[]} all @param {string} typed */
export function matching(all, typed, most = MOST) {
  const sought = typed.toLowerCase();
  const rank = (/** @type {Network} */ each) => {
    const name = each.id.toLowerCase();
    if (name.startsWith(sought)) return 0;
    return name.includes(sought) || each.title.toLowerCase().includes(sought) ? 1 : 2;
  };
  return all.filter((each) => rank(each) < 2).sort((a, b) => rank(a) - rank(b)).slice(0, most);
}

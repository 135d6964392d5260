/**
 * What is dropped or pasted before the page listens is held for it: it would be lost, and the browser would leave the page
 * for the file. No module, since modules run when all of them are there, and people see the page before that.
 */

{
  /** @type {File[]} */
  const held = [];
  /** @param {DragEvent | ClipboardEvent} event */
  const hold = (event) => {
    const [file] = ("dataTransfer" in event ? event.dataTransfer : event.clipboardData)?.files ?? [];
    if (!file) return;
    event.preventDefault();
    held.push(file);
  };
  /** @param {DragEvent} event */
  const allow = (event) => event.preventDefault();
  addEventListener("dragover", allow);
  addEventListener("drop", hold);
  addEventListener("paste", hold);
  /** What came by now; from then on the page listens itself. */
  /** @type {any} */ (globalThis).takeHeldFiles = () => {
    removeEventListener("dragover", allow);
    removeEventListener("drop", hold);
    removeEventListener("paste", hold);
    return held;
  };
}

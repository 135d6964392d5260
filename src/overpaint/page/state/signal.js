/** Values that tell who reads them when they change. State goes one way: a signal is set, effects run, views follow. */

/** @typedef {{run: () => void, sources: Set<Set<Reader>>, inner: (() => void)[]}} Reader */

/**
 * @template T
 * @typedef {{value: T, peek: () => T}} Signal
 */

/** @type {Reader | null} */
let reading = null;
let depth = 0;
/** @type {Set<Reader>} */
const due = new Set();

/**
 * @template T
 * @param {T} first
 * @returns {Signal<T>}
 */
export function signal(first) {
  let held = first;
  /** @type {Set<Reader>} */
  const readers = new Set();
  return {
    get value() {
      if (reading) {
        readers.add(reading);
        reading.sources.add(readers);
      }
      return held;
    },
    set value(next) {
      if (Object.is(next, held)) return;
      held = next;
      for (const each of readers) due.add(each);
      if (!depth) flush();
    },
    peek: () => held,
  };
}

/**
 * Run now, and again whenever a signal that was read has changed. What was begun inside ends before it runs again.
 * @param {() => void} work
 * @returns {() => void} which ends it
 */
export function effect(work) {
  /** @type {Reader} */
  const self = {
    sources: new Set(),
    inner: [],
    run() {
      forget(self);
      const before = reading;
      reading = self;
      try {
        work();
      } finally {
        reading = before;
      }
    },
  };
  const end = () => {
    due.delete(self);
    forget(self);
  };
  reading?.inner.push(end);
  self.run();
  return end;
}

/**
 * A value that follows from others.
 * @template T
 * @param {() => T} work
 * @returns {Signal<T>}
 */
export function computed(work) {
  const result = signal(/** @type {T} */ (/** @type {unknown} */ (undefined)));
  effect(() => {
    result.value = work();
  });
  return result;
}

/**
 * Several changes, told once.
 * @param {() => void} work
 */
export function batch(work) {
  depth++;
  try {
    work();
  } finally {
    depth--;
    if (!depth) flush();
  }
}

function flush() {
  let rounds = 0;
  while (due.size) {
    if (++rounds > 100) throw new Error("signals change each other without end");
    const now = [...due];
    due.clear();
    depth++;
    try {
      for (const each of now) each.run();
    } finally {
      depth--;
    }
  }
}

/** @param {Reader} reader */
function forget(reader) {
  for (const each of reader.sources) each.delete(reader);
  reader.sources.clear();
  for (const end of reader.inner.splice(0)) end();
}

/**
 * Read without following.
 * @template T
 * @param {() => T} work
 * @returns {T}
 */
export function untracked(work) {
  const before = reading;
  reading = null;
  try {
    return work();
  } finally {
    reading = before;
  }
}

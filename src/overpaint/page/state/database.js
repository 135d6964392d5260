/** The browser's own store: a few tables of IndexedDB, each call one transaction that has happened when it returns. */

const NAME = "overpaint";
const VERSION = 1;
/** @type {Record<string, string | undefined>} table -> name of its index by document */
const TABLES = { documents: undefined, blobs: "document", tiles: "document", commands: "document", jobs: "document" };

/** @typedef {{table: string, put?: any, remove?: IDBValidKey, from?: [string, number]}} Write */

/** @type {Promise<IDBDatabase> | null} */
let opened = null;

/** @returns {Promise<IDBDatabase>} */
function database() {
  opened ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open(NAME, VERSION);
    asked.onupgradeneeded = () => {
      for (const [name, index] of Object.entries(TABLES)) {
        const table = asked.result.createObjectStore(name, { keyPath: "key" });
        if (index) table.createIndex(index, index);
      }
    };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
  return opened;
}

/**
 * All of it or nothing.
 * @param {Write[]} writes
 * @returns {Promise<void>}
 */
export async function write(writes) {
  const base = await database();
  await new Promise((resolve, reject) => {
    const names = [...new Set(writes.map((each) => each.table))];
    const change = base.transaction(names, "readwrite", { durability: "relaxed" });
    for (const each of writes) {
      const table = change.objectStore(each.table);
      if (each.put !== undefined) table.put(each.put);
      if (each.remove !== undefined) table.delete(each.remove);
      if (each.from) table.delete(IDBKeyRange.bound(each.from, [each.from[0], Infinity]));
    }
    change.oncomplete = () => resolve(undefined);
    change.onerror = change.onabort = () => reject(change.error);
  });
}

/**
 * @param {string} table
 * @param {IDBValidKey} key
 * @returns {Promise<any>}
 */
export async function read(table, key) {
  const base = await database();
  return answer(base.transaction(table).objectStore(table).get(key));
}

/**
 * Everything of one document, or of all.
 * @param {string} table
 * @param {string} [document]
 * @returns {Promise<any[]>} by key
 */
export async function readAll(table, document) {
  const base = await database();
  const found = base.transaction(table).objectStore(table);
  return answer(document === undefined ? found.getAll() : found.index("document").getAll(document));
}

/**
 * A document with all that belongs to it.
 * @param {string} document
 * @returns {Promise<void>}
 */
export async function removeDocument(document) {
  const base = await database();
  const names = Object.keys(TABLES);
  const change = base.transaction(names, "readwrite");
  change.objectStore("documents").delete(document);
  for (const name of names.filter((each) => TABLES[each])) {
    const table = change.objectStore(name);
    const asked = table.index("document").getAllKeys(document);
    asked.onsuccess = () => asked.result.forEach((key) => table.delete(key));
  }
  await new Promise((resolve, reject) => {
    change.oncomplete = () => resolve(undefined);
    change.onerror = change.onabort = () => reject(change.error);
  });
}

/**
 * @template T
 * @param {IDBRequest<T>} asked
 * @returns {Promise<T>}
 */
function answer(asked) {
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

// -- bytes made small for keeping ------------------------------------------------------------------------------

/**
 * @param {Uint8Array} bytes
 * @param {CompressionFormat} [form]
 * @returns {Promise<Uint8Array>}
 */
export function packed(bytes, form = "deflate-raw") {
  return through(bytes, new CompressionStream(form));
}

/**
 * @param {Uint8Array} bytes
 * @returns {Promise<Uint8Array>}
 */
export function unpacked(bytes) {
  return through(bytes, new DecompressionStream("deflate-raw"));
}

/**
 * @param {Uint8Array} bytes
 * @param {GenericTransformStream} stream
 */
async function through(bytes, stream) {
  const body = new Blob([/** @type {any} */ (bytes)]).stream().pipeThrough(/** @type {any} */ (stream));
  return new Uint8Array(await new Response(body).arrayBuffer());
}

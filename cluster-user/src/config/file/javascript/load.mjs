// Evaluates a configuration file and writes what it exports, as JSON, into descriptor 0: whatever the file prints
// goes elsewhere. Runs in Node, Bun, and Deno.
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import process from 'node:process';

const MOST = 16 * 1024 * 1024;
const path = process.env.CLUSTER_CONFIG_FILE;
delete process.env.CLUSTER_CONFIG_FILE;

const left = [];

// What JSON can say; functions are left out and named, what makes no sense is refused.
const plain = (value, where, within) => {
  switch (typeof value) {
    case 'function':
    case 'symbol':
      left.push(where);
      return undefined;
    case 'bigint':
      return String(value);
    case 'number':
      if (!Number.isFinite(value)) throw new TypeError(`${where} is ${value}`);
      return value;
    case 'object':
      break;
    default:
      return value;
  }
  if (value === null) return null;
  if (value instanceof RegExp) {
    left.push(where);
    return undefined;
  }
  if (value instanceof Date || value instanceof URL) return value.toJSON();
  if (within.includes(value)) throw new TypeError(`${where} contains itself`);
  const inside = [...within, value];
  if (value instanceof Set) value = [...value];
  if (value instanceof Map) value = Object.fromEntries(value);
  if (Array.isArray(value)) {
    const list = value.map((item, at) => plain(item, `${where}[${at}]`, inside));
    return list.filter((item) => item !== undefined);
  }
  const entries = Object.entries(value).map(([key, item]) => {
    return [key, plain(item, where ? `${where}.${key}` : key, inside)];
  });
  return Object.fromEntries(entries.filter(([, item]) => item !== undefined));
};

const exported = async () => {
  const module = await import(pathToFileURL(path).href);
  let value = module.default ?? { ...module };
  // An ES module that a compiler has turned into CommonJS.
  if (value?.__esModule && 'default' in value) value = value.default;
  return await (typeof value === 'function' ? value() : value);
};

const answer = (what) => {
  const text = JSON.stringify(what);
  if (text.length > MOST) throw new RangeError(`exports more than ${MOST} characters`);
  writeFileSync('/proc/self/fd/0', text);
};

try {
  const value = plain(await exported(), '', []);
  answer({ value: value === undefined ? null : value, left });
  process.exit(0);
} catch (error) {
  const isError = error instanceof Error;
  const message = isError ? `${error.name}: ${error.message}` : String(error);
  answer({ message, stack: isError ? String(error.stack) : '' });
  // Uncaught, the runtime says on which line it was.
  throw error;
}

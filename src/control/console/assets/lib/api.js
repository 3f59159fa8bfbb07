// Requests to the server that this page came from, and to no other.

const BASE = '/api/v1';
const KEPT = 'tidemill.token';

let token = sessionStorage.getItem(KEPT);
let refused = () => {};

/** A request that did not succeed, as the server says it. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the server answered ${status}`);
    this.status = status;
    this.title = body.title || 'Error';
    this.faults = Array.isArray(body.faults) ? body.faults : [];
  }
}

/** Calls `handler` when the server asks for a token, or for another one. */
export const onRefused = (handler) => { refused = handler; };

/** Whether a token is kept. */
export const hasToken = () => Boolean(token);

/** Keeps a token as long as the tab is open; nothing forgets it. */
export function keepToken(value) {
  token = value || null;
  if (token) sessionStorage.setItem(KEPT, token);
  else sessionStorage.removeItem(KEPT);
}

async function ask(method, path, body, signal) {
  const headers = { accept: 'application/json' };
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  let response;
  try {
    response = await fetch(BASE + path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), credentials: 'omit' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, { title: 'No answer', detail: 'The server does not answer. Is it still running, and is the network up? This page asks again by itself.' });
  }
  const type = response.headers.get('content-type') || '';
  const text = await response.text();
  let told = text;
  if (type.includes('json')) {
    try { told = text ? JSON.parse(text) : null; } catch { told = null; }
  }
  if (response.ok) return told;
  const problem = new Problem(response.status, told && typeof told === 'object' ? told : { title: response.statusText });
  if (response.status === 401) refused(problem);
  throw problem;
}

export const get = (path, signal) => ask('GET', path, undefined, signal);
export const post = (path, body = {}) => ask('POST', path, body);
export const put = (path, body = {}) => ask('PUT', path, body);
export const remove = (path) => ask('DELETE', path);

/** What `promise` gives, or `otherwise` where there is no such thing now (404, 409, 422, 503). */
export async function maybe(promise, otherwise = null) {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof Problem && [404, 409, 422, 503].includes(error.status)) return otherwise;
    throw error;
  }
}

/** A list, bare or under a name. */
export const listOf = (body, name) => (Array.isArray(body) ? body : (body && body[name]) || []);

/** A path of parts, each encoded. */
export const path = (...parts) => `/${parts.map(encodeURIComponent).join('/')}`;

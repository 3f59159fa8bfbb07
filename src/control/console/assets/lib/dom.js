// Elements from data, and how a page is brought up to date without losing focus, scroll or what was typed.
//
// Text goes into text nodes and attributes alone: nothing that comes from the server is ever read as HTML.

const SVG = 'http://www.w3.org/2000/svg';

function dispatch(event) {
  const handler = this.$on && this.$on[event.type];
  if (handler) handler.call(this, event);
}

function listen(node, on) {
  const known = node.$types || (node.$types = new Set());
  for (const type of Object.keys(on)) {
    if (!known.has(type)) {
      known.add(type);
      node.addEventListener(type, dispatch);
    }
  }
  node.$on = on;
}

function fill(node, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false || child === true) continue;
    if (Array.isArray(child)) fill(node, child);
    else node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

function make(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') listen(node, value);
    else if (name === 'key') node.$key = value;
    else if (name === 'data') node.$data = value;
    else if (name === 'keep') node.$keep = true;
    else if (name === 'vars') vars(node, value);
    else if (name === 'value') node.$value = node.value = value;
    else if (name === 'checked') { node.checked = true; node.$checked = true; }
    else if (name === 'class') node.setAttribute('class', Array.isArray(value) ? value.filter(Boolean).join(' ') : value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  fill(node, children);
  // The options of a select are there only now.
  if (props && props.value !== undefined && node.nodeName === 'SELECT') node.value = props.value;
  return node;
}

// Custom properties of style: the policy forbids style attributes, and this is none.
function vars(node, values) {
  node.$vars = values;
  for (const [name, value] of Object.entries(values)) node.style.setProperty(name, value);
}

/** An HTML element. `on` holds listeners, `key` tells siblings apart, `vars` sets properties of style. */
export function h(tag, props, ...children) {
  return make(document.createElement(tag), props, children);
}

/** An SVG element. */
export function s(tag, props, ...children) {
  return make(document.createElementNS(SVG, tag), props, children);
}

/** Makes the children of `old` those of `fresh`, changing as little as possible. */
export function morph(old, fresh) {
  const keyed = new Map();
  for (const child of old.childNodes) if (child.$key !== undefined) keyed.set(child.$key, child);
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    let match = null;
    if (next.$key !== undefined) {
      const found = keyed.get(next.$key);
      keyed.delete(next.$key);
      if (found && found.nodeName === next.nodeName) match = found;
    } else if (at && at.$key === undefined && at.nodeName === next.nodeName) {
      match = at;
    }
    if (!match) {
      old.insertBefore(next, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    update(match, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    old.removeChild(gone);
  }
}

function update(old, next) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  if (old.$keep && next.$keep) return;
  for (const { name } of [...old.attributes]) {
    const kept = name === 'style' || (name === 'open' && (old.nodeName === 'DETAILS' || old.nodeName === 'DIALOG'));
    if (!kept && !next.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of [...next.attributes]) {
    if (name !== 'style' && !(name === 'open' && old.nodeName === 'DETAILS') && old.getAttribute(name) !== value) {
      old.setAttribute(name, value);
    }
  }
  old.$data = next.$data;
  if (next.$on || old.$on) listen(old, next.$on || {});
  if (next.$vars) vars(old, next.$vars);
  morph(old, next);
  // What the page says of a field's value counts when it changes; else what was typed stays.
  if (next.$value !== undefined && next.$value !== old.$value) old.value = old.$value = next.$value;
  if (next.$checked !== old.$checked && next.nodeName === 'INPUT') old.checked = old.$checked = Boolean(next.$checked);
}

// Bytes that came from outside, shown as text without being taken for anything else.

import { h } from './dom.js';

/** The bytes of base64; what is none gives none. */
export function decode(base64) {
  try {
    return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}

/** Text with what cannot be seen or would mislead made visible: control and direction characters as codes. */
export function visible(text) {
  const parts = [];
  let plain = '';
  for (const c of text) {
    const code = c.codePointAt(0);
    const hidden = (code < 32 && c !== '\n' && c !== '\t') || (code >= 0x7f && code < 0xa0) || (code >= 0x200b && code <= 0x200f) || (code >= 0x202a && code <= 0x202e) || (code >= 0x2060 && code <= 0x2069) || code === 0xfeff || (code >= 0xd800 && code <= 0xdfff);
    if (!hidden) { plain += c; continue; }
    if (plain) parts.push(plain);
    plain = '';
    parts.push(h('span', { class: 'hidden-char', title: 'a character that cannot be seen' }, `\\u{${code.toString(16)}}`));
  }
  if (plain) parts.push(plain);
  return parts;
}

/** Bytes in lines of sixteen: place, hexadecimal, ASCII. */
export function hex(bytes, most = 4096) {
  const lines = [];
  for (let at = 0; at < Math.min(bytes.length, most); at += 16) {
    const row = bytes.subarray(at, Math.min(at + 16, most));
    const digits = [...row].map((b) => b.toString(16).padStart(2, '0'));
    const text = [...row].map((b) => (b >= 32 && b < 127 ? String.fromCharCode(b) : '·')).join('');
    lines.push(`${at.toString(16).padStart(6, '0')}  ${digits.slice(0, 8).join(' ').padEnd(23)}  ${digits.slice(8).join(' ').padEnd(23)}  ${text}`);
  }
  if (bytes.length > most) lines.push(`… ${bytes.length - most} bytes more`);
  return lines.join('\n');
}

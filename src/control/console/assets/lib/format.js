// Numbers, times and bytes for people. Digits are grouped by a narrow space, and units always stand behind.

import { h } from './dom.js';

const THIN = '\u202f';
const NONE = '–';

const known = (value) => value !== null && value !== undefined && Number.isFinite(Number(value));

/** A whole number. */
export function count(value) {
  if (!known(value)) return NONE;
  const text = Math.abs(Math.round(value)).toString().replace(/\B(?=(\d{3})+$)/g, THIN);
  return Number(value) <= -0.5 ? `−${text}` : text;
}

/** A whole number in little room: 12.4 k. */
export function brief(value) {
  if (!known(value)) return NONE;
  const size = Math.abs(value);
  for (const [unit, name] of [[1e9, 'G'], [1e6, 'M'], [1e4, 'k']]) {
    if (size >= unit) return `${trimmed(value / (unit === 1e4 ? 1e3 : unit), 3)}${THIN}${name}`;
  }
  return count(value);
}

function trimmed(value, digits) {
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value) || 1)));
  const text = Number(value).toFixed(Math.min(places, 6));
  return (text.includes('.') ? text.replace(/\.?0+$/, '') : text).replace('-', '−');
}

/** A number with four significant digits at most. */
export function number(value) {
  if (!known(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size >= 1000 && size < 1e9) return count(value);
  if (size < 1e-4 || size >= 1e9) {
    const [digits, power] = Number(value).toExponential(1).split('e');
    const raised = [...String(Number(power))].map((c) => (c === '-' ? '⁻' : '⁰¹²³⁴⁵⁶⁷⁸⁹'[c])).join('');
    return `${digits.replace('-', '−')} · 10${raised}`;
  }
  return trimmed(value, 4);
}

/** So many each second. */
export const rate = (value) => (known(value) ? `${Math.abs(value) >= 100 ? count(value) : trimmed(value, 2)}/s` : NONE);

/** A part of one, in per cent. */
export const share = (value) => (known(value) ? `${trimmed(value * 100, Math.abs(value) < 0.1 ? 2 : 3)}${THIN}%` : NONE);

/** Bytes, by powers of 1000. */
export function bytes(value) {
  if (!known(value)) return NONE;
  for (const [unit, name] of [[1e12, 'TB'], [1e9, 'GB'], [1e6, 'MB'], [1e3, 'kB']]) {
    if (Math.abs(value) >= unit) return `${trimmed(value / unit, 3)}${THIN}${name}`;
  }
  return `${count(value)}${THIN}B`;
}

/** A duration in milliseconds. */
export function duration(ms) {
  if (!known(ms)) return NONE;
  const size = Math.abs(ms);
  if (size < 1) return `${trimmed(ms, 2)}${THIN}ms`;
  if (size < 1000) return `${trimmed(ms, 3)}${THIN}ms`;
  for (const [unit, name, small, below] of [[86400e3, 'd', 3600e3, 'h'], [3600e3, 'h', 60e3, 'min'], [60e3, 'min', 1e3, 's']]) {
    if (size >= unit) {
      const whole = Math.floor(size / unit);
      const rest = Math.floor((size - whole * unit) / small);
      const text = rest && whole < 100 ? `${count(whole)}${THIN}${name} ${rest}${THIN}${below}` : `${count(whole)}${THIN}${name}`;
      return ms < 0 ? `−${text}` : text;
    }
  }
  return `${trimmed(ms / 1000, 3)}${THIN}s`;
}

/** A value in a unit by the name that statistics have for it. */
export function inUnit(value, unit) {
  switch (unit) {
    case 'share': return share(value);
    case 'count': return count(value);
    case 'milliseconds': return duration(value);
    case 'seconds': return duration(value * 1000);
    case 'bytes': return bytes(value);
    case 'per_second': return rate(value);
    default: return number(value);
  }
}

let utc = false;
/** Whether times are shown in UTC. */
export const isUtc = () => utc;
/** Shows times in UTC, or in the browser's zone. */
export const setUtc = (value) => { utc = value; };

/** Milliseconds of a time as the server tells it: RFC 3339, or microseconds. */
export function millis(time) {
  if (time === null || time === undefined || time === '') return null;
  const ms = typeof time === 'number' ? time / 1000 : Date.parse(time);
  return Number.isFinite(ms) ? ms : null;
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const two = (n) => String(n).padStart(2, '0');

function fields(ms, inUtc) {
  const date = new Date(ms);
  if (inUtc) {
    return [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate(), date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()];
  }
  return [date.getFullYear(), date.getMonth(), date.getDate(), date.getHours(), date.getMinutes(), date.getSeconds()];
}

function written(ms, inUtc) {
  const [year, month, day, hour, minute, second] = fields(ms, inUtc);
  return `${day} ${MONTHS[month]} ${year} ${two(hour)}:${two(minute)}:${two(second)}`;
}

/** A moment as text, in the zone that was chosen. */
export function moment(time) {
  const ms = millis(time);
  return ms === null ? NONE : written(ms, utc);
}

/** A moment's label on an axis that is so many milliseconds long. */
export function tick(ms, length) {
  const [year, month, day, hour, minute, second] = fields(ms, utc);
  if (length > 700 * 86400e3) return `${MONTHS[month]} ${year}`;
  if (length > 3 * 86400e3) return `${day} ${MONTHS[month]}`;
  if (length > 86400e3) return `${day} ${MONTHS[month]} ${two(hour)}:${two(minute)}`;
  if (length > 600e3) return `${two(hour)}:${two(minute)}`;
  return `${two(hour)}:${two(minute)}:${two(second)}`;
}

/** A moment as an element: in the zone that was chosen, the other in its title. */
export function time(value) {
  const ms = millis(value);
  if (ms === null) return h('span', { class: 'muted' }, NONE);
  const other = utc ? `${written(ms, false)} local` : `${written(ms, true)} UTC`;
  return h('time', { datetime: new Date(ms).toISOString(), title: other }, written(ms, utc));
}

/** How long ago a moment was, as an element. */
export function ago(value) {
  const ms = millis(value);
  if (ms === null) return h('span', { class: 'muted' }, NONE);
  const past = Date.now() - ms;
  const text = Math.abs(past) < 1500 ? 'now' : past < 0 ? `in ${duration(Math.floor(-past / 1000) * 1000)}` : `${duration(Math.floor(past / 1000) * 1000)} ago`;
  return h('time', { datetime: new Date(ms).toISOString(), title: `${written(ms, false)} local, ${written(ms, true)} UTC` }, text);
}

// The key map. It is shown by the page Keys.

/** What is bound: keys, what they do in words, and what they do. */
export const KEYS = [
  ['g j', 'Jobs'], ['g f', 'Features'], ['g m', 'Models'], ['g t', 'Trainings'], ['g a', 'Alerts'], ['g s', 'Server'],
  ['n', 'Submit a job'], ['/', 'Go to the search field'], ['j', 'Next row'], ['k', 'Row before'], ['Enter', 'Open the row'],
  [']', 'Next tab'], ['[', 'Tab before'], ['b', 'One level up'], ['u', 'Times in local time or UTC'], ['.', 'Light or dark'], ['?', 'This page'],
  ['Esc', 'Leave a field, close a dialog'], ['← → ↑ ↓', 'In the graph: go from node to node; in a plot: read values'],
];

const go = (hash) => () => { location.hash = hash; };

function row(way) {
  const links = [...document.querySelectorAll('main .row-link')];
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at < 0 ? (way > 0 ? 0 : links.length - 1) : at + way))].focus();
}

function tab(way) {
  const links = [...document.querySelectorAll('main .tabs .tab')];
  const at = links.findIndex((link) => link.classList.contains('on'));
  const next = links[(at + way + links.length) % links.length];
  if (next) location.hash = next.getAttribute('href');
}

/** The handlers of keys. */
export function bindings({ toggleTheme, toggleZone, route }) {
  return {
    'g j': go('#/jobs'), 'g f': go('#/features'), 'g m': go('#/models'), 'g t': go('#/trainings'), 'g a': go('#/alerts'), 'g s': go('#/server'),
    n: go('#/jobs?new'), '/': () => document.querySelector('main input[type=search]')?.focus(),
    j: () => row(1), k: () => row(-1), ']': () => tab(1), '[': () => tab(-1),
    b: () => { const { parts } = route(); location.hash = `#/${parts.slice(0, Math.min(1, parts.length - 1)).join('/') || parts[0]}`; },
    u: toggleZone, '.': toggleTheme, '?': go('#/keys'),
  };
}

let first = '';

/** Does what a key stands for; a key after `g` is one with it. */
export function press(event, bound) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const target = event.target;
  const typing = target instanceof HTMLElement && (target.matches('input:not([type=radio]):not([type=checkbox]), textarea, select') || target.isContentEditable);
  if (typing) {
    if (event.key === 'Escape') target.blur();
    return;
  }
  if (document.querySelector('dialog[open]')) return;
  const keys = first ? `${first} ${event.key}` : event.key;
  first = '';
  if (bound[keys]) {
    event.preventDefault();
    bound[keys]();
  } else if (event.key === 'g') {
    first = 'g';
    setTimeout(() => { first = ''; }, 1200);
  }
}

// The job's file with its versions and its plan, and the upgrade that says what it would change first.

import { h } from '../../lib/dom.js';
import { get, maybe, path, put } from '../../lib/api.js';
import { button, chip, fact, faults, save, section, toast } from '../../lib/ui.js';

export async function load({ id, ctx }, signal) {
  const version = ctx.state.version;
  const [file, plan] = await Promise.all([
    ctx.slow.get(`file ${version || ''}`, 6000, () => get(`${path('jobs', id, 'file')}${version ? `?version=${version}` : ''}`, signal)),
    ctx.slow.get('plan', 10000, () => maybe(get(path('jobs', id, 'plan'), signal))),
  ]);
  return { file, plan };
}

export function view({ job, own, ctx }) {
  const { file, plan } = own;
  if (ctx.state.editing !== undefined) return editor(job, own, ctx);
  const given = (name, values) => (Object.keys(values || {}).length ? fact(name, Object.entries(values).map(([key, value]) => h('code', { class: 'given' }, `${key}=${value}`))) : null);
  return [
    h('div', { class: 'bar-line' },
      h('label', { class: 'small' }, 'Version ', h('select', { value: String(file.version), on: { change: (event) => { ctx.set({ version: Number(event.target.value) }); ctx.refresh(); } } }, (file.versions || [file.version]).map((n) => h('option', { value: n, selected: n === file.version }, n === job.version ? `${n}, runs` : n)))),
      button('Upgrade…', () => ctx.set({ editing: file.file, preview: null }), { kind: 'primary small', title: 'Go on with a changed file' }),
      button('Save', () => save(`${job.name}.yaml`, file.file), { kind: 'small' })),
    h('div', { class: 'facts' }, given('Values', file.settings.values), given('Changes', file.settings.set), fact('Workers', file.settings.workers), file.settings.from ? fact('Began with', file.settings.from) : null, file.settings.until_end ? fact('Ends', 'with its input') : null),
    h('pre', { class: 'code-block yaml', tabindex: 0, 'aria-label': 'Dataflow file' }, yaml(file.file)),
    plan ? section('Plan', `of version ${plan.version}`, h('pre', { class: 'code-block', tabindex: 0, 'aria-label': 'Plan' }, plan.plan)) : null,
  ];
}

// Comments, keys and values apart; nothing more is understood of YAML than that.
function yaml(text) {
  return String(text).split('\n').map((line, i) => {
    const at = line.search(/(^|\s)#/);
    const comment = at >= 0 && (line.slice(0, at).split('"').length % 2 === 1) ? line.slice(at) : '';
    const rest = comment ? line.slice(0, at) : line;
    const key = /^(\s*(?:- )?)([\w.$-]+)(:)(?=\s|$)/.exec(rest);
    return h('span', { class: 'y-line', 'data-n': i + 1 }, key ? [key[1], h('span', { class: 'y-key' }, key[2]), ':', rest.slice(key[0].length)] : rest, comment ? h('span', { class: 'y-comment' }, comment) : null, '\n');
  });
}

function editor(job, { file }, ctx) {
  const told = ctx.state.preview;
  const send = async (dry) => {
    const text = document.querySelector('textarea[name=upgrade]').value;
    const drop = Boolean(document.querySelector('input[name=drop]')?.checked);
    ctx.set({ busy: true });
    try {
      const outcome = await put(`${path('jobs', job.id, 'file')}?dry_run=${dry}`, drop && !dry ? { file: text, allow_drop: true } : { file: text });
      if (!dry) {
        ctx.set({ editing: undefined, preview: null, busy: false, version: undefined });
        ctx.refresh();
        toast(`${job.name} goes on with version ${outcome.version}`);
        return;
      }
      ctx.set({ busy: false, preview: { outcome, text } });
    } catch (error) {
      ctx.set({ busy: false, preview: { error } });
    }
  };
  const ready = told && told.outcome;
  return [
    h('div', { class: 'bar-line' }, h('b', null, `Upgrade from version ${file.version}`), h('span', { class: 'muted small' }, 'First see what would change in state and operators; then go on, from a savepoint.')),
    h('textarea', { name: 'upgrade', class: 'code', rows: 22, spellcheck: 'false', 'aria-label': 'Changed dataflow file', value: ctx.state.editing, on: { input: () => { if (ctx.state.preview) ctx.set({ preview: null }); } } }),
    h('div', { class: 'actions' },
      button('See what changes', () => send(true), { kind: ready ? '' : 'primary', disabled: ctx.state.busy }),
      button('Upgrade', () => send(false), { kind: ready ? 'primary' : '', disabled: ctx.state.busy || !ready, title: ready ? '' : 'See what changes first' }),
      button('Cancel', () => ctx.set({ editing: undefined, preview: null }))),
    told && told.error ? h('div', { class: 'trouble', role: 'alert' }, h('div', null, h('strong', null, told.error.title), h('p', null, told.error.message), faults(told.error.faults))) : null,
    ready ? changes(told.outcome) : null,
  ];
}

function changes(outcome) {
  const state = outcome.changes;
  const names = (list, tone) => (list.length ? list.map((name) => chip(name, tone)) : h('span', { class: 'muted' }, 'none'));
  return section(`What version ${outcome.version} changes`, null,
    state ? h('dl', { class: 'pairs' },
      h('dt', null, 'Kept'), h('dd', { class: 'chips' }, names(state.kept, 'good')),
      h('dt', null, 'Begins without state'), h('dd', { class: 'chips' }, names(state.gained, 'warn')),
      h('dt', null, 'Lost'), h('dd', null, state.lost.length ? h('ul', { class: 'plain-list' }, state.lost.map((one) => h('li', null, chip(one.operator, 'bad'), ` ${one.why}`))) : h('span', { class: 'muted' }, 'none'))) : h('p', { class: 'muted' }, 'The job has saved no state yet.'),
    outcome.needs_allow_drop ? h('label', { class: 'check' }, h('input', { type: 'checkbox', name: 'drop' }), h('span', null, 'Drop the state that is lost')) : null,
    outcome.warnings && outcome.warnings.length ? faults(outcome.warnings) : null,
    outcome.plan && outcome.plan.length ? h('pre', { class: 'code-block diff', tabindex: 0, 'aria-label': 'Changes of the plan' }, outcome.plan.map((line) => h('span', { class: line.startsWith('+') ? 'plus' : line.startsWith('-') ? 'minus' : null }, `${line}\n`))) : h('p', { class: 'muted' }, 'The plan stays as it is.'));
}

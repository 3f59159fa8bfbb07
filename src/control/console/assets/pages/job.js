// One job: its parts as tabs.

import { h } from '../lib/dom.js';
import { get, maybe, path } from '../lib/api.js';
import * as f from '../lib/format.js';
import { empty, fact, head, state, tabs } from '../lib/ui.js';
import { actions, lagText, pressureBar, rateOf } from './jobs.js';
import * as graph from './job/graph.js';
import * as sources from './job/sources.js';
import * as checkpoints from './job/checkpoints.js';
import * as letters from './job/letters.js';
import * as quality from './job/quality.js';
import * as rollouts from './job/rollouts.js';
import * as logs from './job/logs.js';
import * as file from './job/file.js';
import * as events from './job/events.js';

const PARTS = {
  graph: ['Graph', graph], sources: ['Sources', sources], checkpoints: ['Checkpoints', checkpoints], letters: ['Dead letters', letters],
  quality: ['Quality', quality], rollouts: ['Models', rollouts], logs: ['Logs', logs], file: ['File', file], events: ['Events', events],
};

export async function load(ctx, signal) {
  const id = ctx.parts[1];
  const part = PARTS[ctx.parts[2] || 'graph'];
  const job = await get(path('jobs', id), signal);
  // A job without a process cannot be asked.
  const status = ['RUNNING', 'STOPPING'].includes(job.state) ? await maybe(get(path('jobs', id, 'status'), signal)) : null;
  const own = part ? await part[1].load({ id, job, status, ctx }, signal) : null;
  return { job, status, own, part: ctx.parts[2] || 'graph' };
}

export function view({ job, status, own, part: loaded }, ctx) {
  const name = ctx.parts[2] || 'graph';
  const part = PARTS[name];
  const base = `#/jobs/${encodeURIComponent(job.id)}`;
  const dead = status ? status.dead_letters : 0;
  const firing = status ? status.alerts.filter((alert) => alert.state === 'firing').length : 0;
  const badge = { letters: dead ? f.brief(dead) : null, quality: firing ? f.count(firing) : null };
  return [
    head([job.name, ' ', state(job.state)], [
      fact('Job', job.id),
      status ? fact('Rate', f.rate(rateOf(status)), 'Rows read each second') : null,
      status ? fact('Lag', lagText(status)) : null,
      status ? fact('Clock', f.time(status.clock), 'The job’s clock, in event time') : null,
      status ? fact('Backpressure', pressureBar(status.backpressure)) : null,
      status ? fact('State', `${f.brief(status.keys)} keys, ${f.bytes(status.state_bytes)}`) : null,
      fact('Workers', f.count(job.workers)),
      fact('File', `version ${job.version}`),
      fact('Restarts', f.count(job.restarts)),
      job.pid ? fact('Process', h('span', { class: 'num' }, job.pid)) : null,
      fact('Since', f.ago(job.started || job.updated)),
    ], h('a', { class: 'back', href: '#/jobs' }, '‹ Jobs'), actions(job, ctx)),
    job.error || (status && status.error) ? h('div', { class: job.state === 'FAILED' ? 'trouble' : 'remark', role: 'alert' }, h('div', null, h('strong', null, job.state === 'FAILED' ? 'The job has failed' : 'Last error'), h('pre', { class: 'plain' }, (status && status.error) || job.error), job.state === 'FAILED' ? h('p', null, 'See its ', h('a', { href: `${base}/logs` }, 'logs'), '; mend the cause, then start it again, or upgrade its ', h('a', { href: `${base}/file` }, 'file'), '.') : null)) : null,
    job.doing ? h('p', { class: 'remark' }, `Being done: ${job.doing}.`) : null,
    tabs('Parts of the job', Object.entries(PARTS).map(([key, [title]]) => [key, `${base}/${key}`, title, badge[key]]), name),
    h('div', { class: 'tab-body', key: name }, !part ? empty('There is no such part', h('a', { href: base }, 'Go to the graph'))
      : loaded !== name ? h('p', { class: 'loading', role: 'status' }, 'Reading…') : part[1].view({ job, status, own, ctx })),
  ];
}

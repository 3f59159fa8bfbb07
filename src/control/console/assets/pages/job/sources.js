// Sources with their partitions: offsets, lag, watermarks.

import { h } from '../../lib/dom.js';
import * as f from '../../lib/format.js';
import { chip, fact, section, table } from '../../lib/ui.js';
import { asleep } from './shared.js';

export const load = async () => ({});

export function view({ job, status }) {
  if (!status) return asleep(job);
  const all = status.sources.flatMap((source) => source.partitions).filter((p) => p.watermark && !p.idle).map((p) => f.millis(p.watermark));
  const newest = all.length ? Math.max(...all) : null;
  return status.sources.map((source) => section(source.name, source.kind,
    h('div', { class: 'facts' },
      fact('Rate', f.rate(source.rate)), fact('Read', f.count(source.read)), fact('Accepted', f.count(source.accepted)), fact('Filtered', f.count(source.filtered), 'Taken out by `where`'),
      fact('Late, dropped', f.count(source.late)), fact('Dead letters', source.dead ? h('a', { href: `#/jobs/${encodeURIComponent(job.id)}/letters` }, f.count(source.dead)) : '0'),
      source.up === undefined || source.up === null ? null : fact('Brokers', source.up ? 'answer' : chip('do not answer', 'bad'))),
    table(`Partitions of ${source.name}`, [
      { name: 'Partition', num: true, of: (p) => p.partition },
      { name: 'Next offset', num: true, of: (p) => f.count(p.next_offset) },
      { name: 'Lag', num: true, of: (p) => (p.lag === undefined || p.lag === null ? h('span', { class: 'muted' }, '–') : `${f.count(p.lag)} rows`) },
      { name: 'Watermark', of: (p) => f.time(p.watermark) },
      { name: 'Behind the newest', num: true, of: (p) => behind(p, newest) },
      { name: 'Standing', of: (p) => (p.ended ? chip('read to its end') : p.idle ? chip('idle', 'warn', 'Silent; it holds no watermark back') : p.paused ? chip('waits', '', 'Ahead of the others in event time') : chip('reads', 'good')) },
    ], source.partitions, { key: (p) => p.partition })));
}

function behind(p, newest) {
  if (!p.watermark || newest === null) return '–';
  return f.duration(newest - f.millis(p.watermark));
}

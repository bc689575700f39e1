import type { Manifest } from '../../config/manifest.ts';
import { loadRules } from '../../config/protection.ts';
import type { IncidentReport } from '../../report/schema.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { type Selection, selectedReport } from '../incident/process-reports.ts';
import { explainUnmatched, listCandidates, selectByRules } from '../processes/select.ts';
import { required, stage } from './stage-list.ts';

export const selectionStage = stage({
  name: 'selection',
  needs: { kernel: required<Kernel>() },
  run: ({ kernel }, { manifest, report }) => ({ selection: select(kernel, manifest, report) }),
});

/** Which processes the rules name: those of the configuration, and those that `protect` has set. */
function select(kernel: Kernel, manifest: Manifest, report: IncidentReport): Selection {
  const saved = loadRules();
  report.errors.push(...saved.problems);
  const rules = [...manifest.rules, ...saved.rules];
  const { candidates, unreadable } = listCandidates(kernel);
  report.notes.push(...unreadable);
  const { selected, unmatched } = selectByRules(rules, candidates);
  report.processes.push(...selected.map(selectedReport));
  report.unmatchedRules.push(...unmatched.map((rule) => explainUnmatched(rule, candidates)));
  return { selected, candidates, rules };
}

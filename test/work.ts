import assert from 'node:assert/strict';

const looking = ['find', 'findIndex', 'findLast', 'some', 'every', 'filter'] as const;
const searching = ['includes', 'indexOf'] as const;

type Callback = (...given: readonly unknown[]) => unknown;

/**
 * How many elements of arrays a step looks at: with `for` and spreading, and with the methods that look for
 * one. It is the same in each run, as no time is.
 */
export function elementsLookedAt(step: () => void): number {
  const own: Record<PropertyKey, unknown> = Array.prototype as never;
  const before = new Map<PropertyKey, unknown>(
    [...looking, ...searching, Symbol.iterator].map((name) => [name, own[name]]),
  );
  let count = 0;
  const iterate = before.get(Symbol.iterator) as (this: unknown) => Iterator<unknown>;
  for (const name of looking) {
    const method = before.get(name) as (this: unknown, each: Callback) => unknown;
    own[name] = function (this: unknown, each: Callback) {
      return method.call(this, (...given) => {
        count++;
        return each(...given);
      });
    };
  }
  for (const name of searching) {
    const method = before.get(name) as (this: unknown, ...given: readonly unknown[]) => unknown;
    own[name] = function (this: readonly unknown[], ...given: readonly unknown[]) {
      count += this.length;
      return method.apply(this, [...given]);
    };
  }
  own[Symbol.iterator] = function (this: unknown) {
    const elements = iterate.call(this);
    return {
      next: () => {
        count++;
        return elements.next();
      },
      [Symbol.iterator]() {
        return this;
      },
    };
  };
  try {
    step();
  } finally {
    for (const [name, method] of before) own[name] = method;
  }
  return count;
}

/**
 * Asserts that work is in proportion to the number of things that it is done with.
 * @param workOf how much there is with so many things: elements, reads, calls; never a time
 */
export function assertInProportion(workOf: (things: number) => number, few = 16): void {
  const [small, large] = [workOf(few), workOf(4 * few)];
  assert.ok(small > 0, 'there is no work that could grow');
  assert.ok(large <= 5 * small, `${few} things are ${small} units of work, ${4 * few} are ${large}`);
}

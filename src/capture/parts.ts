/** Parts of a whole by their names, each made by its kind. */
export type PartMakers<Whole, Group> = { readonly [Part in keyof Whole]: (group: Group) => Whole[Part] };

/** Has every kind make its part. Throws what one of them throws. */
export function makeParts<Whole, Group>(makers: PartMakers<Whole, Group>, group: Group): Whole {
  const parts: Partial<Whole> = {};
  for (const part in makers) parts[part] = makers[part](group);
  return parts as Whole;
}

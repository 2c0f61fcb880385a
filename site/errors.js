/** What a person can mend: one sentence that says what was found and what was expected. */
export class Problem extends Error {}

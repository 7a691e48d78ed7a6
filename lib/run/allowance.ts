/**
 * How many tasks a consumer may claim: all there are once it has been started, and otherwise as many as `drain` or
 * `runOne` allow.
 */
export class Allowance {
  #isUnlimited = false
  #left = 0
  /** How many tasks have begun. */
  #begun = 0
  /** Whether the last claim has found that nothing is due. */
  #isDry = false

  /** How many tasks may still be claimed. */
  get left (): number { return this.#left }

  /** Whether the consumer claims whatever there is. */
  get isUnlimited (): boolean { return this.#isUnlimited }

  get begun (): number { return this.#begun }

  /** Whether more tasks may be claimed, and may be there. */
  get isOpen (): boolean { return this.#left > 0 && !this.#isDry }

  grantAll (): void {
    this.#isUnlimited = true
    this.grant(Infinity)
  }

  grant (count: number): void {
    this.#left = this.#isUnlimited ? Infinity : count
    this.#isDry = false
  }

  /** Withdraws what `grant` has left over. */
  withdraw (): void {
    if (!this.#isUnlimited) this.#left = 0
  }

  noteClaim (claimed: number, isDry: boolean): void {
    this.#left -= claimed
    this.#isDry = isDry
  }

  noteReturn (count: number): void { this.#left += count }

  noteBegin (): void { this.#begun++ }
}

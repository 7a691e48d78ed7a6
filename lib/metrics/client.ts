/** The values of labels, by their names. */
export type Labels = Record<string, string>

interface MetricOptions {
  name: string
  help: string
  labelNames: string[]
  registers: never[]
  collect?: () => Promise<void>
}

/** The parts of a client of Prometheus that are needed. `prom-client` and `@prometheus-io/client` have them. */
export interface PrometheusClient {
  readonly register: object
  readonly Counter: new (options: MetricOptions) => Counter
  readonly Gauge: new (options: MetricOptions) => Gauge
  readonly Histogram: new (options: MetricOptions & { buckets: number[] }) => Histogram
}

export interface Counter { inc (labels: Labels, value?: number): void }
export interface Gauge { set (labels: Labels, value: number): void, reset (): void }
export interface Histogram { observe (labels: Labels, value: number): void }

/** In seconds, from 5 ms to 10 minutes. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]

/** Makes metrics in one registry, whose names begin with one prefix. */
export class Maker {
  readonly #client: PrometheusClient
  readonly #register: object
  readonly #prefix: string

  constructor (client: PrometheusClient, register: object, prefix: string) {
    this.#client = client
    this.#register = register
    this.#prefix = prefix
  }

  counter (name: string, help: string, ...labelNames: string[]): Counter {
    return new this.#client.Counter(this.#options(name, help, labelNames))
  }

  /** Makes a histogram of seconds. */
  histogram (name: string, help: string, ...labelNames: string[]): Histogram {
    return new this.#client.Histogram({ ...this.#options(name, help, labelNames), buckets: BUCKETS })
  }

  /** @param collect is called by each scrape, and sets the gauge */
  gauge (name: string, help: string, collect: () => Promise<void>, ...labelNames: string[]): Gauge {
    return new this.#client.Gauge({ ...this.#options(name, help, labelNames), collect })
  }

  #options (name: string, help: string, labelNames: string[]): MetricOptions {
    return { name: this.#prefix + name, help, labelNames, registers: [this.#register as never] }
  }
}

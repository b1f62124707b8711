/** undici of simulated sites: a request goes to the simulated network. */
import { machine } from '../machine.ts'
import { type NetworkRequest, network } from '../network.ts'

export * from 'undici'

export class Agent {
  async request(request: NetworkRequest): Promise<unknown> {
    const context = machine.context()
    if (context === undefined) throw new Error('a request outside of the simulation')
    return network.request(context, request)
  }

  async destroy(): Promise<void> {}
  async close(): Promise<void> {}
}

export class ProxyAgent extends Agent {}
export class EnvHttpProxyAgent extends Agent {}

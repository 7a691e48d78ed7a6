import neostandard from 'neostandard'

/**
 * The folders of lib, each of which may import those before it. A store sees the port of stores and what stands
 * before it, and no other store.
 */
const LAYERS = [['store'], ['task'], ['dispatch', 'queue'], ['schedule'], ['add', 'run'], ['plugin'], ['metrics', 'otel', 'dashboard']]
const STORES = ['local', 'redis', 'conformance']

const forbid = (files, folders) => ({
  files,
  rules: {
    'no-restricted-imports': ['error', {
      patterns: folders.length === 0
        ? []
        : [{ regex: `^(?:\\.\\./)+(?:${folders.join('|')})/`, message: 'Imports of lib point one way: see CONTRIBUTING.md.' }]
    }]
  }
})

const directions = LAYERS.flatMap((folders, level) => folders.map(folder =>
  forbid([`lib/${folder}/**`], LAYERS.slice(level).flat().filter(other => other !== folder))))

const stores = STORES.map(store => forbid([`lib/store/${store}/**`], [
  ...LAYERS.slice(1).flat(), ...STORES.filter(other => other !== store)
]))

export default [
  ...neostandard({ ts: true, ignores: ['build/**', '.tap/**'] }),
  ...directions,
  forbid(['lib/store/*.ts'], [...LAYERS.slice(1).flat(), ...STORES]),
  ...stores,
  {
    files: ['lib/**', 'bench/**'],
    rules: {
      '@stylistic/max-len': ['error', { code: 120, ignoreRegExpLiterals: true }],
      'max-lines': ['error', { max: 330 }]
    }
  }
]

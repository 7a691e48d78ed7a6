// What `require('fastify-taskqueue')` returns: the plugin, with everything else as its properties.
'use strict'

const { default: plugin, ...others } = require('../build/lib/index.js')

module.exports = Object.assign(plugin, others)

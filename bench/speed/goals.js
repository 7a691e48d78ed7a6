import { number } from '../support/text.js'

/**
 * What a figure ought to be, and whether it is.
 *
 * @typedef {object} Goal
 * @property {string} goal
 * @property {string} wanted
 * @property {number} value NaN if it was not measured.
 * @property {boolean} isReached
 */

/**
 * @param {number} least
 * @param {string} goal
 * @param {number} value
 * @returns {Goal}
 */
export function atLeast (least, goal, value) {
  return { goal, wanted: `≥ ${number(least)}`, value, isReached: value >= least }
}

/**
 * @param {number} most
 * @param {string} goal
 * @param {number} value
 * @returns {Goal}
 */
export function atMost (most, goal, value) {
  return { goal, wanted: `≤ ${number(most)}`, value, isReached: value <= most }
}

// What is told of an Application that Argo CD cannot bring about.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { applicationErrors, chartsOwnWords } from '../lib/applications.ts'

const test = suite('applications')

const HELM =
  'Failed to load target state: failed to generate manifest for source 1 of 1: rpc error: code = Unknown desc = failed to execute helm template command: failed running helm: `helm template . --name-template app` failed exit status 1: Error: '
const EMPTY =
  'execution error at (lunarfront-app/templates/secret.yaml:1:4): image.tag is empty: expected the tag of an image'
const HINT = '\n\nUse --debug flag to render out invalid YAML'

test('the chart’s own sentence, and not what Argo CD, gRPC and Helm put around it', () => {
  const sentence = 'image.tag is empty: expected the tag of an image'
  assert.is(chartsOwnWords(HELM + EMPTY + HINT), sentence)
  assert.is(chartsOwnWords(HELM + EMPTY), sentence)
  const schema =
    "values don't meet the specifications of the schema(s) in the following chart(s):\nlunarfront-app:\n- at '': additional properties 'replica' not allowed"
  assert.is(chartsOwnWords(`${HELM}${schema}\n${HINT}`), schema)
  assert.is(chartsOwnWords('one or more objects failed to apply'), 'one or more objects failed to apply')
})

test('once, however often it is said', () => {
  const application = {
    metadata: { name: 'customer-acme' },
    spec: { syncPolicy: { syncOptions: [] } },
    status: {
      sync: { status: 'Unknown', revision: '' },
      health: { status: 'Healthy' },
      operationState: { phase: 'Error', message: `ComparisonError: ${HELM}${EMPTY}${HINT} (retried 3 times).` },
      conditions: [{ type: 'ComparisonError', message: HELM + EMPTY + HINT }],
    },
  } as Parameters<typeof applicationErrors>[0]
  assert.equal(applicationErrors(application), ['image.tag is empty: expected the tag of an image'])
})

test.run()

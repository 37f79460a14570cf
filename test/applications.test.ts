// What is told of an Application that Argo CD cannot bring about.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Application, applicationErrors, applicationProblems, chartsOwnWords } from '../lib/applications.ts'

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
    metadata: { name: 'customer-acme', labels: {} },
    spec: { source: {}, syncPolicy: { syncOptions: [] } },
    status: {
      sync: { status: 'Unknown', revision: '' },
      health: { status: 'Healthy' },
      operationState: { phase: 'Error', message: `ComparisonError: ${HELM}${EMPTY}${HINT} (retried 3 times).` },
      conditions: [{ type: 'ComparisonError', message: HELM + EMPTY + HINT }],
    },
  } as Parameters<typeof applicationErrors>[0]
  assert.equal(applicationErrors(application), ['image.tag is empty: expected the tag of an image'])
})

test('what Argo CD says of an Application as it was before says nothing of it as it is', () => {
  const source = (file: string) => ({ path: 'gitops/chart', helm: { valueFiles: [file] } })
  const application = (compared: object): Application => ({
    metadata: { name: 'customer-acme', labels: {} },
    spec: { source: source('canary.yaml'), syncPolicy: { syncOptions: [] } },
    status: {
      sync: { status: 'Synced', revision: 'abc', comparedTo: { source: compared } },
      health: { status: 'Healthy' },
      conditions: [],
    },
  })
  assert.equal(applicationProblems(application(source('canary.yaml'))), [])
  assert.equal(applicationProblems(application(source('values.yaml'))), ['it has changed since it was compared'])
})

test.run()

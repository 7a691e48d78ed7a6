import t from 'tap'
import { html } from '../../lib/dashboard/html.js'

t.test('text is escaped, HTML of the same tag is not, lists are put together, and what is missing is left out', async t => {
  const text = '<script>alert("1")</script> & \'x\''
  t.equal(String(html`<p title="${text}">${text}</p>`), '<p title="&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39;">&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39;</p>')
  t.equal(String(html`${html`<b>${'<'}</b>`}${['a', html`<i></i>`, ['b']]}${undefined}${null}${false}${0}`), '<b>&lt;</b>a<i></i>b0')
  t.equal(String(html`${{ toString: () => '<b>' } as unknown as string}`), '&lt;b&gt;', 'only what the tag has made is HTML')
})

t.test('characters that would hide or turn the text around them are shown as what they are', async t => {
  t.equal(String(html`${'a\u202eb\u0000c\u2066d\ud800e\n\tf'}`), 'a\\u202eb\\u0000c\\u2066d\\ud800e\n\tf')
  t.equal(String(html`${'🚨 ü'}`), '🚨 ü')
})

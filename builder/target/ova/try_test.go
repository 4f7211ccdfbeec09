package ova
import ("testing";"time")
type say struct{t *testing.T}
func (s say) Say(f string, a ...any){s.t.Logf(f,a...)}
func (s say) Warn(f string, a ...any){s.t.Logf("W "+f,a...)}
func TestTry(t *testing.T){
 t0:=time.Now()
 r,err:=Make(t.Context(),"/work/tmp/ova/demo",Options{},say{t})
 t.Log(time.Since(t0),r,err)
}

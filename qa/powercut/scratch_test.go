package powercut
import ("testing";"fmt";"os";"strconv";"time";"context")
func TestScratch(t *testing.T){
 n,_:=strconv.Atoi(os.Getenv("N")); from,_:=strconv.Atoi(os.Getenv("FROM"))
 c:=Campaign{Base:"/work/tmp/H/rec/base.raw",Log:"/work/tmp/H/rec/log.raw",Dir:"/work/tmp/H",Memory:"/dev/shm",Programs:Programs{"/work/tmp/H/delta-tree","/root/.cache/holdfast/tools/edab906161cf26928ee1d5ac"},Cuts:n,Seed:1,From:from}
 s:=time.Now(); last:=s
 c.Each=func(n int, c Cut, d *os.File, o Outcome) error { fmt.Println(n,time.Since(last).Round(time.Millisecond),c,o); last=time.Now(); return nil}
 r,err:=c.Run(context.Background()); fmt.Println(r,err,time.Since(s))
}

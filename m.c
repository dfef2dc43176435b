#define _GNU_SOURCE
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
uint64_t h2(const void*,uint64_t),h5(const void*,uint64_t);
static double now(){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec+1e-9*t.tv_nsec;}
#define N (256<<20)
static inline void pf(const char*p,int lines){for(int i=0;i<lines;i++)__builtin_prefetch(p+64*i,0,2);}
int main(){char*b=mmap(0,N+(2<<20),3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);b=(char*)(((uintptr_t)b+(2<<20)-1)&~((uintptr_t)(2<<20)-1));madvise(b,N,MADV_HUGEPAGE);memset(b,1,N);
for(size_t i=0;i<N;i+=8)*(uint64_t*)(b+i)=i*0x9e3779b97f4a7c15ull;
uint64_t s=0;int pages=N/4096;
for(int r=0;r<3;r++){
 for(int mode=0;mode<6;mode++){
  double t=now();
  for(int c=0;c<pages/64;c++){int cc=(c*37)%(pages/64);char*p=b+(size_t)cc*64*4096;
   for(int k=0;k<64;k++){char*q=p+4096*k; 
    int l=mode==2||mode==3?16:mode==4?64:mode==5?64:0; if(l&&k<63)pf(q+4096,l);
    s+=(mode==0||mode==2||mode==4)?h2(q,1):h5(q,1);}}
  printf("%s%s %.0f ns  ",(mode%2)?"512":"256",mode<2?"":mode<4?"+16":"+64",(now()-t)*1e9/pages);
 } 
 double t=now();volatile uint64_t x=0;for(int c=0;c<pages/64;c++){int cc=(c*37)%(pages/64);char*p=b+(size_t)cc*64*4096;uint64_t y=0;for(int k=0;k<64*512;k+=8)y+=((uint64_t*)p)[k];x+=y;}printf("touch lines %.0f",(now()-t)*1e9/pages);
 t=now();for(int i=0;i<pages;i++)s+=h2(b,1);printf(" warm256 %.0f",(now()-t)*1e9/pages);t=now();for(int i=0;i<pages;i++)s+=h5(b,1);printf(" warm512 %.0f\n",(now()-t)*1e9/pages);
}
printf("%lu\n",s);}
